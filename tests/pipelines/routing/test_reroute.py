"""Routes that are set while they serve: what is refused, who is told, what outlives a restart."""

from pathlib import Path

import pytest

from cluster.errors import Conflict, InvalidRequest, NotFound
from tests.pipelines.routing.test_control import ASKED, World

RULES = [{"when": {"tenants": ["staff"]}, "to": "v7"}]
ROUTE = {"weights": {"v6": 99.5, "v7": 0.5}, "rules": RULES, "shadow": {"version": "v7", "share": 5.0}}


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path / "releases")
    await made.turn()
    await made.turn()
    return made


def route(world: World) -> dict:
    return world.table["routes"]["chat"]


async def test_a_route_is_set_and_gateways_and_the_audit_know(world):
    told = await world.control.reroute("chat", ROUTE, "ann")
    assert {name: told[name] for name in ROUTE} == ROUTE
    (line,) = told["audit"]
    assert (line["event"], line["by"], line["was"]["weights"]) == ("set", "ann", {"v6": 100.0})
    assert line["now"] == ROUTE
    await world.turn()
    assert route(world)["weights"] == {"v6": 99.5, "v7": 0.5}
    assert route(world)["settings"]["rules"][0]["to"] == "v7"
    assert route(world)["settings"]["shadow"] == {"version": "v7", "share": 5.0}
    assert await world.control.route("chat") == told
    with pytest.raises(InvalidRequest, match="weights: nothing is not accepted; say who has how much"):
        await world.control.reroute("chat", {"rules": RULES}, "bob")
    again = await world.control.reroute("chat", {"weights": {"v6": 100}}, "bob")
    assert (again["weights"], again["rules"], again["shadow"]) == ({"v6": 100.0}, [], None)
    assert [each["by"] for each in again["audit"]] == ["ann", "bob"]
    with pytest.raises(NotFound, match="no model chart; there is chat, other"):
        await world.control.reroute("chart", {}, "ann")
    with pytest.raises(NotFound, match="no model chart"):
        await world.control.route("chart")


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        ({"weights": {"v6": 60, "v7": 30}}, "weights", r"60 \+ 30 = 90 .* add up to 100"),
        ({"weights": {"v6": 90, "v9": 10}}, "weights.v9", "served: v6, v7"),
        ({"weights": {"v6": "all"}}, "weights.v6", "it is a number"),
        ({"weights": [1]}, "weights", "it is a mapping"),
        ({"rules": [{"when": {}, "to": "v7"}]}, "rules.0.when", "say whose"),
        ({"rules": [{"when": {"users": ["a"]}, "to": "v9"}]}, "rules.0.to", "served: v6, v7"),
        ({"rules": [{"when": {"languages": ["klingon"]}, "to": "v7"}]}, "rules.0.when.languages.0", "one of"),
        ({"rules": [{"when": {"user": ["a"]}, "to": "v7"}]}, "rules.0.when.user", "users"),
        ({"rules": [{"when": {"headers": {"cookie": "x"}}, "to": "v7"}]}, "rules.0.when.headers", "of your own"),
        ({"shadow": {"version": "v6"}}, "shadow.version", "mirror itself"),
        ({"shadow": {"version": "v7", "share": 0}}, "shadow.share", "above 0"),
        ({"weigths": {}}, "weigths", "unknown field .* give weights, rules, shadow"),
        ({"evals": {"sums": "x"}}, "evals", "routes.chat.evals in the settings"),
        ({"release": {}}, "release", "in the settings and deploy"),
    ],
)
async def test_what_no_settings_file_may_say_is_refused_in_its_words(world, asked, field, says):
    before = await world.control.route("chat")
    with pytest.raises(InvalidRequest, match=says) as wrong:
        await world.control.reroute("chat", asked, "ann")
    assert wrong.value.param == field
    assert await world.control.route("chat") == before


async def test_a_model_that_is_released_by_itself_is_left_to_its_release(tmp_path):
    world = World(tmp_path, {"chat": {"release": {"on": "main"}}})
    with pytest.raises(InvalidRequest, match="release: beside weights, rules or a shadow"):
        await world.control.reroute("chat", ROUTE, "ann")


async def test_a_rollout_or_an_experiment_holds_the_route(world):
    await world.control.start(ASKED, "ann")
    with pytest.raises(Conflict, match=r"chat has the rollout chat-v7, pending; .* `strata rollout abort chat-v7`"):
        await world.control.reroute("chat", ROUTE, "bob")
    await world.control.command("chat-v7", "abort", "ann")
    await world.turn()
    trial = {"name": "tone", "model": "chat", "arms": {"v6": 50, "v7": 50}, "rate": 0.5, "effect": 0.2, "users": 9_000}
    await world.control.experiment(trial, "ann")
    with pytest.raises(Conflict, match="chat has the experiment tone; end it: `strata experiment end tone`"):
        await world.control.reroute("chat", ROUTE, "bob")
    with pytest.raises(Conflict, match="chat has the experiment tone"):
        await world.control.experiment(trial | {"name": "words"}, "ann")
    with pytest.raises(Conflict, match="chat has the experiment tone"):
        await world.control.start(ASKED, "ann")
    await world.control.end("tone", None, "ann")
    with pytest.raises(Conflict, match="the experiment tone is there already; give the new one another name"):
        await world.control.experiment(trial, "ann")
    await world.control.reroute("chat", ROUTE, "bob")


async def test_a_version_without_a_replica_is_refused_with_those_that_have_one(world):
    for name in world.numbers:
        world.numbers[name] += 1
        report = {"number": world.numbers[name], "revision": 0, "arms": []}
        await world.control.report(name, report | {"ready": {"chat@v6": True, "chat@v7": False}})
    with pytest.raises(Conflict, match=r"chat@v7 is without a replica \(ready: v6\)"):
        await world.control.reroute("chat", ROUTE, "ann")
    await world.turn()
    await world.control.reroute("chat", ROUTE, "ann")


async def test_a_route_outlives_a_restart_and_rollouts_go_on_from_it(world):
    await world.control.reroute("chat", ROUTE, "ann")
    kept = await world.control.route("chat")
    world.start()
    assert await world.control.route("chat") == kept
    await world.control.start({**ASKED, "steps": [100]}, "ann")
    await world.turn()
    await world.control.command("chat-v7", "promote", "ann")
    await world.turn()
    world.start()
    told = await world.control.route("chat")
    assert (told["weights"], told["rules"]) == ({"v7": 100.0}, RULES)


@pytest.mark.parametrize(
    ("routes", "versions", "left"),
    [
        ({"chat": {"weights": {"v6": 100}}}, ("v6", "v7"), ROUTE),  # as it was without a word
        ({"chat": {"weights": {"v7": 100}}}, ("v6", "v7"), ROUTE | {"weights": {"v7": 100.0}}),
        ({"chat": {"shadow": {"version": "v7"}}}, ("v6", "v7"), ROUTE | {"shadow": {"version": "v7"}}),
        ({"chat": {"evals": {}}}, ("v6", "v7", "v8"), ROUTE),
        ({}, ("v6", "v8"), {"weights": {"v6": 100.0}, "rules": [], "shadow": None}),
    ],
)
async def test_what_a_deploy_says_anew_counts_and_nothing_else(world, routes, versions, left):
    await world.control.reroute("chat", ROUTE, "ann")
    world.routes, world.versions = routes, {"chat": versions}
    world.start()
    told = await world.control.route("chat")
    assert {name: told[name] for name in ROUTE} == left
    lost = any(told[name] != ROUTE[name] for name in ("rules", "shadow"))
    assert [line["event"] for line in told["audit"]] == ["set", *(["end"] if lost else [])]
    world.start()
    assert (await world.control.route("chat"))["audit"] == told["audit"], "told once"


async def test_a_state_of_before_routes_were_set_is_read(world):
    state = world.control._ledger.load()
    del state["routes"]["chat"]["parts"]
    world.control._ledger.save(state)
    world.start()
    assert (await world.control.route("chat"))["weights"] == {"v6": 100.0}
