from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.routing.route import Facts, Ramp, Route, choose, first, holds
from pipelines.routing.settings import STEPS, RouteSettings, When
from pipelines.routing.writing import writing

USERS = [f"user-{number}" for number in range(10_000)]


def ask(user: str, **more) -> Facts:
    return Facts("acme", user, **more)


def split(route: Route, users=USERS) -> dict[str, str]:
    return {user: choose(route, ask(user)).version for user in users}


@pytest.mark.parametrize(
    "weights", [{"a": 50.0, "b": 50.0}, {"a": 99.5, "b": 0.5}, {"a": 70.0, "b": 20.0, "c": 10.0}, {"a": 1.0, "b": 99.0}]
)
def test_ten_thousand_users_are_split_within_one_percent(weights):
    counts = Counter(split(Route("chat", weights)).values())
    for version, share in weights.items():
        assert abs(counts[version] / len(USERS) - share / 100) < 0.01


@pytest.mark.parametrize("steps", [STEPS, (1, 10, 100), (0.5, 3, 100), tuple(range(1, 101, 3))])
def test_a_ramp_is_kept_within_one_percent_and_moves_a_user_at_most_once(steps):
    before, moves = split(Route("chat", {"v6": 100.0})), Counter[str]()
    for share in steps:
        now = split(Route("chat", {"v6": 100.0}, ramp=Ramp("v6", "v7", share)))
        assert abs(sum(version == "v7" for version in now.values()) / len(USERS) - share / 100) < 0.01
        moves.update(user for user in USERS if now[user] != before[user])
        assert not [user for user in USERS if before[user] == "v7" and now[user] == "v6"]
        before = now
    assert max(moves.values()) == 1


@pytest.mark.parametrize("tenant", ["acme", "other"])
@pytest.mark.parametrize("count", [10_000, 60_000])
def test_the_first_step_touches_half_a_percent_and_the_same_users_each_time(count, tenant):
    users = [f"{tenant}-{number}" for number in range(count)]

    def touched(share: float) -> set[str]:
        route = Route("chat", {"v6": 100.0}, ramp=Ramp("v6", "v7", share))
        return {user for user in users if choose(route, Facts(tenant, user)).version == "v7"}

    first_step, wanted = touched(STEPS[0]), count * 0.005
    assert STEPS[0] == 0.5
    assert abs(len(first_step) - wanted) < 4 * wanted**0.5, "four standard deviations of a fair draw"
    assert touched(STEPS[0]) == first_step < touched(STEPS[1])


def test_a_ramp_leaves_the_users_of_other_versions_alone_and_takes_other_users_for_the_next_version():
    weights = {"v5": 30.0, "v6": 70.0}
    before = split(Route("chat", weights))
    now = split(Route("chat", weights, ramp=Ramp("v6", "v7", 10)))
    assert all(now[user] == "v5" for user in USERS if before[user] == "v5")
    first_to_try = {user for user, version in now.items() if version == "v7"}
    second = split(Route("chat", weights, ramp=Ramp("v6", "v8", 10)))
    again = {user for user, version in second.items() if version == "v8"}
    assert len(first_to_try & again) < 0.2 * len(again), "the same users would try all that is new"


def test_more_weight_takes_users_and_gives_none_away():
    before = split(Route("chat", {"a": 40.0, "b": 40.0, "c": 20.0}))
    after = split(Route("chat", {"a": 40.0, "b": 40.0, "c": 40.0}))
    assert {after[user] for user in USERS if after[user] != before[user]} == {"c"}


def test_who_takes_a_place_has_its_users_and_nobody_else_moves():
    route = Route("chat", {"v5": 30.0, "v6": 70.0}, ramp=Ramp("v6", "v7", 100))
    before, after = split(route), split(route.replaced("v6", "v7"))
    assert before == after
    again = split(Route("chat", route.replaced("v6", "v7").replaced("v7", "v8").weights, seeds={"v8": "v6"}))
    assert {user for user in USERS if again[user] == "v8"} == {user for user in USERS if after[user] == "v7"}


def test_other_weights_move_only_whom_they_have_to():
    promoted = Route("chat", {"v6": 100.0}).replaced("v6", "v7")
    before = split(promoted.weighed({"v7": 80.0, "v8": 20.0}))
    assert before == split(promoted.weighed({"v7": 80.0, "v8": 20.0}).weighed({"v8": 20.0, "v7": 80.0}))
    grown = split(promoted.weighed({"v7": 70.0, "v8": 30.0}))
    assert {grown[user] for user in USERS if grown[user] != before[user]} == {"v8"}


@pytest.mark.parametrize("chain", [("v6", "v7"), ("v6", "v7", "v8")])
def test_a_version_that_comes_back_draws_other_users_than_who_took_its_place(chain):
    route = Route("chat", {"v6": 100.0})
    for old, new in pairwise(chain):
        route = route.weighed({old: 60.0, "other": 40.0}).replaced(old, new)
    back = route.weighed({chain[-1]: 50.0, "v6": 50.0})
    assert len({back.seeds.get(version, version) for version in back.weights}) == 2
    assert abs(Counter(split(back).values())["v6"] / len(USERS) - 0.5) < 0.02


def test_a_user_is_one_of_the_tenant():
    route = Route("chat", {"a": 50.0, "b": 50.0})
    here = [choose(route, Facts("acme", user)).version for user in USERS[:200]]
    there = [choose(route, Facts("other", user)).version for user in USERS[:200]]
    assert here != there


@settings(deadline=None)
@given(st.text(), st.text(), st.sampled_from([0.0, 0.5, 50.0, 100.0]))
def test_any_name_gets_a_version_and_always_the_same(tenant, user, share):
    route = Route("chat", {"v6": 60.0, "v5": 40.0}, ramp=Ramp("v6", "v7", share))
    found = choose(route, Facts(tenant, user))
    assert found == choose(route, Facts(tenant, user))
    assert found.version != "v7" or share
    assert found.version != "v6" or share < 100


def test_the_first_rule_that_holds_counts_and_its_users_are_no_sample():
    rules = [
        {"when": {"tenants": ["staff"]}, "to": "v7"},
        {"when": {"headers": {"x-beta": "yes"}, "languages": ["chinese"]}, "to": "v5"},
    ]
    route = first("chat", RouteSettings.model_validate({"rules": rules}), ("v6", "v7", "v5"))
    assert choose(route, Facts("staff", "ann")) == choose(route, Facts("staff", "bob"))
    found = choose(route, Facts("staff", "ann", headers={"x-beta": "yes"}, text="你好"))
    assert (found.version, found.by, found.arms) == ("v7", "rules.0", False)
    assert choose(route, Facts("acme", "ann", headers={"x-beta": "yes"}, text="你好")).version == "v5"
    assert choose(route, Facts("acme", "ann", headers={"x-beta": "yes"}, text="hello")).version == "v6"


@pytest.mark.parametrize(
    ("when", "facts", "wanted"),
    [
        ({"users": ["ann"]}, ask("ann"), True),
        ({"users": ["ann"], "tenants": ["other"]}, ask("ann"), False),
        ({"characters_least": 10}, ask("ann", characters=9), False),
        ({"characters_least": 10}, ask("ann", characters=10), True),
        ({"characters_most": 10}, ask("ann", characters=11), False),
        ({"headers": {"x-a": "1"}}, ask("ann"), False),
        ({"languages": ["latin", "greek"]}, ask("ann", text="καλημέρα"), True),
        ({"languages": ["latin"]}, ask("ann", text="12 + 9"), False),
    ],
)
def test_a_rule_is_about_what_it_says(when, facts, wanted):
    assert holds(When.model_validate(when), facts) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("What is 7 times 8?", "latin"), ("七乘以八等于多少？", "chinese"), ("use vLLM 部署这个模型好吗", "chinese"),
        ("これは漢字です", "japanese"), ("안녕하세요", "korean"), ("Привет", "cyrillic"), ("שלום", "hebrew"),
        ("مرحبا", "arabic"), ("नमस्ते", "devanagari"), ("สวัสดี", "thai"), ("", None), ("123 🙂", None), ("\ud800", None),
    ],
)  # fmt: skip
def test_writing(text, wanted):
    assert writing(text) == wanted
