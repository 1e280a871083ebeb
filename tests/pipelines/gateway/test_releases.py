"""Versions side by side behind the gateway, with the real controller and fake models."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from actors.engine.tokens import Tokenizer
from cluster.errors import ContextTooLong, Overloaded, Unavailable
from cluster.security.keys import KeyRing
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Served
from pipelines.gateway.app import assemble, create
from pipelines.gateway.desk import Desk
from pipelines.gateway.mirror import AT_ONCE, agreement
from pipelines.routing.control import Control
from pipelines.routing.guide import Guide
from pipelines.routing.route import first
from pipelines.routing.settings import RouteSettings
from tests.pipelines.gateway.conftest import Stage
from tests.pipelines.gateway.fakes import FakeClient

RULES = {"rules": [{"when": {"headers": {"x-beta": "yes"}}, "to": "v7"}]}


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Fair(Stage):
    """A gateway in front of two versions, and who decides."""

    control: Control
    desk: Desk
    guide: Guide
    versions: dict[str, FakeClient]
    clock: "Clock"

    async def ask(self, user: str = "", model: str = "chat", headers=None, **more):
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "user": user, **more}
        async with self.http() as http:
            return await http.post("/v1/chat/completions", json=body, headers=headers or {})

    async def call(self, method: str, path: str, body=None, key=None):
        async with self.http(key) as http:
            return await http.request(method, path, json=body)

    async def turn(self) -> None:
        """What a second of the gateway's tasks does."""
        self.clock.now += 3.0
        self.guide.take(await self.control.watch("g", -1, 0))
        report = self.guide.report()
        self.guide.told(await self.control.report("g", report))
        self.guide.take(await self.control.watch("g", -1, 0))


@pytest.fixture
def fair(tokenizer: Tokenizer, tmp_path: Path) -> Fair:
    versions = {"v6": FakeClient(), "v7": FakeClient()}
    served = {f"chat@{name}": Served(f"chat@{name}", client, tokenizer, 5) for name, client in versions.items()}
    settings = RouteSettings.model_validate(RULES)
    guide = Guide({"chat": first("chat", settings, ("v6", "v7"))}, ready=lambda name: served[name].client.ready)
    ring, metrics = KeyRing(tmp_path / "keys.json"), Metrics()
    key = ring.issue("ann", "acme", "admin", created=1)
    clock = Clock()
    control = Control({"chat": RULES}, {"chat": ("v6", "v7")}, str(tmp_path / "releases"), clock)
    control._look = lambda: None
    desk = Desk(served, ring, metrics, guide=guide, releases=control)
    made = Fair(assemble(desk), versions["v6"], tokenizer, metrics, ring, key)
    made.desk = desk
    made.control, made.guide, made.versions, made.clock = control, guide, versions, clock
    return made


async def begin(fair: Fair, **more):
    asked = {"model": "chat", "to": "v7", "steps": [50, 100], "every_seconds": 3600, "answers": 5, **more}
    answer = await fair.call("POST", "/v1/rollouts", asked)
    assert answer.status_code == 200, answer.text
    await fair.turn()
    await fair.turn()
    return answer.json()


async def test_an_answer_says_which_version_it_is_of_and_the_name_that_was_asked(fair):
    answer = await fair.ask("ann")
    assert (answer.headers["x-strata-version"], answer.json()["model"]) == ("v6", "chat")
    answer = await fair.ask("ann", model="chat@v7")
    assert (answer.headers["x-strata-version"], answer.json()["model"]) == ("v7", "chat@v7")
    answer = await fair.ask("ann", stream=True)
    assert (answer.headers["x-strata-version"], '"model":"chat"' in answer.text) == ("v6", True)
    told = fair.metrics.text().decode()
    assert 'vllm:request_success_total{finished_reason="length",model_name="chat",version="v6"} 2.0' in told


async def test_a_rule_sees_the_header_that_it_names(fair):
    assert (await fair.ask("ann", headers={"x-beta": "yes"})).headers["x-strata-version"] == "v7"
    assert (await fair.ask("ann", headers={"x-beta": "no"})).headers["x-strata-version"] == "v6"


async def test_a_route_is_set_over_http_and_counts_at_once(fair):
    path = "/v1/routes/chat"
    before = (await fair.call("GET", path)).json()
    assert (before["weights"], before["rules"]) == ({"v6": 100.0}, RULES["rules"])
    rules = [{"when": {"characters_least": 50}, "to": "v7"}, {"when": {"languages": ["chinese"]}, "to": "v7"}]
    answer = await fair.call("PUT", path, {"weights": {"v6": 100}, "rules": rules, "shadow": None})
    assert (answer.status_code, answer.json()["audit"][-1]["by"]) == (200, "ann"), answer.text
    await fair.turn()
    for text, version in (("hello", "v6"), ("x" * 50, "v7"), ("你好", "v7")):
        told = await fair.ask(messages=[{"role": "user", "content": text}])
        assert told.headers["x-strata-version"] == version
    assert (await fair.ask("ann", headers={"x-beta": "yes"})).headers["x-strata-version"] == "v6", "no rule any more"
    assert (await fair.call("PUT", path, {"weights": {"v7": 100}})).status_code == 200
    await fair.turn()
    assert {(await fair.ask(str(user))).headers["x-strata-version"] for user in range(20)} == {"v7"}


async def test_a_route_that_cannot_be_set_says_why_in_openai_s_shape(fair):
    path = "/v1/routes/chat"
    wrong = await fair.call("PUT", path, {"weights": {"v9": 100}})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "weights.v9")
    assert "served: v6, v7" in wrong.text
    fair.versions["v7"].ready = False
    await fair.turn()
    away = await fair.call("PUT", path, {"weights": {"v7": 100}})
    assert (away.status_code, "ready: v6" in away.text) == (409, True)
    fair.versions["v7"].ready = True
    await begin(fair)
    held = await fair.call("PUT", path, {"weights": {"v6": 100}})
    assert (held.status_code, held.json()["error"]["code"]) == (409, "conflict")
    assert "chat has the rollout chat-v7, ramping; wait for its end" in held.text
    assert (await fair.call("PUT", "/v1/routes/chart", {})).json()["error"]["code"] == "model_not_found"
    monitor = fair.ring.issue("eve", "acme", "monitor", created=1)
    assert (await fair.call("GET", path, key=monitor)).status_code == 200
    assert (await fair.call("PUT", path, {}, monitor)).status_code == 403


async def test_models_are_listed_by_both_names(fair):
    cards = (await fair.call("GET", "/v1/models")).json()["data"]
    assert [card["id"] for card in cards] == ["chat", "chat@v6", "chat@v7"]
    assert cards[0]["versions"] == ["v6", "v7"], "to which a rule leads"
    assert "strata" not in cards[0]
    told = {"registry": "chat@prod", "version": "v6", "commit": "c" * 40, "digest": "d" * 64}
    fair.versions["v6"].registry = told
    cards = (await fair.call("GET", "/v1/models")).json()["data"]
    assert [card.get("strata") for card in cards] == [told, told, None]
    assert (await fair.call("GET", "/v1/models/chat")).json()["id"] == "chat"
    assert (await fair.ask(model="chat@v9")).status_code == 404
    assert "chat, chat@v6, chat@v7" in (await fair.ask(model="chart")).text


async def test_users_are_split_and_stay_where_they_are(fair):
    await begin(fair)
    seen = {user: (await fair.ask(user)).headers["x-strata-version"] for user in map(str, range(60))}
    assert set(Counter(seen.values())) == {"v6", "v7"}
    for user, version in seen.items():
        assert (await fair.ask(user)).headers["x-strata-version"] == version


async def test_a_version_that_refuses_is_taken_back_and_nobody_notices(fair):
    await begin(fair)
    fair.versions["v7"].full = Overloaded("chat@v7", 9, 1)
    answers = [await fair.ask(str(user)) for user in range(120)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-strata-version"] for answer in answers} == {"v6"}
    await fair.turn()
    await fair.turn()
    found = (await fair.call("GET", "/v1/rollouts/chat-v7")).json()
    assert found["state"] == "rolled back"
    assert "error_rate" in found["reason"]
    assert [line["event"] for line in found["audit"]] == ["start", "warm", "broken", "told"]


async def test_one_that_breaks_off_is_taken_back(fair):
    await begin(fair)
    fair.versions["v7"].breaks_after, fair.versions["v7"].breaks_with = 1, Unavailable("chat@v7", "it broke")
    told = [(await fair.ask(str(user), stream=True)).text for user in range(120)]
    assert any("it broke" in text for text in told)
    await fair.turn()
    await fair.turn()
    assert (await fair.call("GET", "/v1/rollouts")).json()["data"][0]["state"] == "rolled back"
    fair.versions["v7"].breaks_after = None
    assert {(await fair.ask(str(user))).headers["x-strata-version"] for user in range(40)} == {"v6"}


async def test_what_a_client_asks_wrongly_is_no_fault_of_the_version(fair):
    await begin(fair)
    for user in range(40):
        assert (await fair.ask(str(user), max_tokens=10_000)).status_code == 400
    await fair.turn()
    assert (await fair.call("GET", "/v1/rollouts")).json()["data"][0]["answers"] == {"new": 0, "old": 0}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/rollouts", {"model": "chat", "to": "v6"}, 400, "to"),
        ("/v1/rollouts", {"model": "chat", "to": "v7", "abort_if": ["speed > 1"]}, 400, "abort_if[0]"),
        ("/v1/rollouts", {"model": "chat", "to": "v7", "stps": [1]}, 400, "stps"),
        ("/v1/rollouts", {"model": "chat", "to": "v7", "dry_run": "yes"}, 400, "dry_run"),
        ("/v1/rollouts", {"model": "chart", "to": "v7"}, 404, "model"),
        ("/v1/rollouts/chat-v9", {"action": "abort"}, 404, None),
        ("/v1/rollouts/chat-v9", {"action": 5}, 400, "action"),
        ("/v1/rollouts/chat-v9", {"action": "abort", "now": True}, 400, "now"),
    ],
)
async def test_refusals_have_openai_s_shape(fair, path, body, status, param):
    answer = await fair.call("POST", path, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


async def test_people_need_the_permission_and_say_what_happens(fair):
    await begin(fair)
    user, monitor = (fair.ring.issue("bob", "acme", role, created=1) for role in ("user", "monitor"))
    assert (await fair.call("POST", "/v1/rollouts/chat-v7", {"action": "abort"}, user)).status_code == 403
    assert (await fair.call("POST", "/v1/rollouts/chat-v7", {"action": "abort"}, monitor)).status_code == 403
    assert (await fair.call("GET", "/v1/rollouts", key=monitor)).json()["data"][0]["by"] == "ann"
    answer = await fair.call("POST", "/v1/rollouts/chat-v7", {"action": "resume"})
    assert (answer.status_code, "takes pause, abort, promote" in answer.text) == (409, True)
    assert (await fair.call("POST", "/v1/rollouts/chat-v7", {"action": "promote"})).json()["state"] == "promoting"
    await fair.turn()
    assert (await fair.ask("ann")).headers["x-strata-version"] == "v7"
    assert (await fair.call("GET", "/v1/routes")).json()["data"][0]["weights"] == {"v7": 100.0}


async def test_without_versions_there_is_nothing_to_roll_out(fair):
    desk = create({}, fair.ring)
    bare = Stage(desk, fair.client, fair.tokenizer, fair.metrics, fair.ring, fair.key)
    async with bare.http() as http:
        assert (await http.get("/v1/rollouts")).status_code == 404


@pytest.mark.parametrize("user", [5, "x" * 513, ["a"]])
async def test_a_user_is_a_text(fair, user):
    assert (await fair.ask(user)).json()["error"]["param"] == "user"


async def test_what_only_the_new_version_refuses_the_old_one_answers_and_it_counts_against_the_new_one(fair):
    await begin(fair, steps=[50, 100])
    fair.versions["v7"].refuses = ContextTooLong("max_tokens", 3, "this context holds 2")
    for user in range(40):
        answer = await fair.ask(str(user), stream=user % 2 == 0)
        assert (answer.status_code, answer.headers["x-strata-version"]) == (200, "v6")
    arms = {each["version"]: each["arm"] for each in fair.guide.report()["arms"]}
    assert arms["v7"]["answers"] == arms["v7"]["errors"] > 5
    assert arms["v6"]["errors"] == 0


async def test_answers_under_which_a_gang_died_can_take_a_version_back(fair):
    await begin(fair, steps=[50, 100], margin=None, abort_if=["loss_rate > 10%"])
    fair.versions["v7"].deaths = 1
    for user in range(80):
        assert (await fair.ask(str(user), stream=user % 2 == 0)).status_code == 200
    await fair.turn()
    await fair.turn()
    (rollout,) = (await fair.call("GET", "/v1/rollouts")).json()["data"]
    assert (rollout["state"], "loss_rate > 0.1" in rollout["reason"]) == ("rolled back", True), rollout


async def test_what_both_versions_refuse_is_the_client_s_fault(fair):
    await begin(fair, steps=[50, 100])
    for client in fair.versions.values():
        client.refuses = ContextTooLong("max_tokens", 3, "this context holds 2")
    for user in range(20):
        answer = await fair.ask(str(user))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "max_tokens")
    assert not fair.guide.report()["arms"]
    assert not fair.guide._under_way


async def test_what_is_mirrored_is_compared_and_nobody_sees_it(fair):
    await begin(fair, steps=[1, 100], mirror=100)
    fair.versions["v7"].script = (65, 66, 67)
    told = [await fair.ask(str(user), stream=user % 2 == 0) for user in range(6)]
    assert {answer.headers["x-strata-version"] for answer in told} == {"v6"}
    await fair.desk.mirror.rest()
    assert fair.versions["v7"].priorities == [100] * len(fair.versions["v7"].streams)
    text = fair.metrics.text().decode()
    assert 'strata_shadows_total{model_name="chat",outcome="compared",version="v7"}' in text
    arms = {each["version"]: each["arm"] for each in fair.guide.report()["arms"]}
    compared, shared = arms["v7"]["scores"]["shadow.agreement"]
    assert (compared > 0, shared, arms["v7"]["answers"]) == (True, 0.0, 0)


async def test_a_drifting_version_is_taken_back_before_anybody_has_it(fair):
    await begin(fair, steps=[0.01, 100], mirror=100, abort_if=["shadow.agreement < 0.8"])
    fair.versions["v7"].script = (65, 66, 67)
    for user in range(12):
        await fair.ask(str(user))
        await fair.desk.mirror.rest()
    await fair.turn()
    await fair.turn()
    assert "shadow.agreement" in (await fair.call("GET", "/v1/rollouts")).json()["data"][0]["reason"]


@pytest.mark.parametrize("trouble", ["hangs", "breaks", "refuses", "full"])
async def test_a_shadow_in_trouble_disturbs_nobody(fair, trouble):
    await begin(fair, steps=[0.01, 100], mirror=100)
    shadow = fair.versions["v7"]
    if trouble == "hangs":
        shadow.free_deltas = 1
    elif trouble == "breaks":
        shadow.breaks_after, shadow.breaks_with = 1, Unavailable("chat@v7", "it broke")
    elif trouble == "refuses":
        shadow.refuses = Unavailable("chat@v7", "gone")
    else:
        shadow.full = Overloaded("chat@v7", 9, 1)
    for user in range(3 * AT_ONCE):
        assert (await fair.ask(str(user))).status_code == 200
    text = fair.metrics.text().decode()
    if trouble == "hangs":
        assert len(shadow.streams) == AT_ONCE
        assert 'strata_shadows_total{model_name="chat",outcome="dropped",version="v7"}' in text
        shadow.gate.set()
    await fair.desk.mirror.rest()
    assert len(fair.desk.mirror._tasks) == 0


TRIAL = {"name": "tone", "model": "chat", "arms": {"v6": 50, "v7": 50}, "rate": 0.5, "effect": 0.3, "users": 2000}


async def experiment(fair: Fair, **more):
    answer = await fair.call("POST", "/v1/experiments", {**TRIAL, **more})
    assert answer.status_code == 200, answer.text
    await fair.turn()


async def test_an_experiment_hears_what_users_say_and_all_get_the_better_one(fair):
    await experiment(fair)
    for user in range(150):
        answer = await fair.ask(str(user))
        like = answer.headers["x-strata-version"] == "v7" or user % 4 == 0
        said = {"id": answer.json()["id"], "rating": "up" if like else "down"}
        for _ in range(2):  # a user counts once
            assert (await fair.call("POST", "/v1/feedback", said)).status_code == 200
    await fair.turn()
    told = (await fair.call("GET", "/v1/experiments/tone")).json()
    first, second = told["findings"]
    assert first["users"] + second["users"] == 150
    assert second["said"].startswith("better by")
    assert second["differs"]["low"] > 0
    ended = (await fair.call("POST", "/v1/experiments/tone", {"action": "end", "keep": "v7"})).json()
    assert ended["over"]
    await fair.turn()
    assert {(await fair.ask(str(user))).headers["x-strata-version"] for user in range(20)} == {"v7"}
    assert (await fair.call("POST", "/v1/experiments/tone", {"action": "end"})).status_code == 409
    assert [line.get("event") for line in fair.control._ledger.audit()] == ["start", "end"]


async def test_an_answer_is_kept_unless_the_user_asks_the_same_again(fair):
    await experiment(fair, metric="kept")
    for user in range(40):
        version = (await fair.ask(str(user))).headers["x-strata-version"]
        text = "x" if version == "v6" else "something else"
        await fair.ask(str(user), messages=[{"role": "user", "content": text}])
    await fair.turn()
    first, second = (await fair.call("GET", "/v1/experiments/tone")).json()["findings"]
    assert (first["mean"]["looks"], second["mean"]["looks"]) == (0.0, 1.0)


async def test_feedback_is_evidence_for_a_rollout(fair):
    await begin(fair, abort_if=["feedback.thumbs < 0.5"], margin=None)
    for user in range(60):
        answer = await fair.ask(str(user))
        await fair.call("POST", "/v1/feedback", {"id": answer.json()["id"], "rating": "down"})
    await fair.turn()
    await fair.turn()
    assert "feedback.thumbs" in (await fair.call("GET", "/v1/rollouts")).json()["data"][0]["reason"]


async def test_an_answer_may_be_spoken_of_as_soon_as_it_begins_and_never_where_there_is_none(fair):
    await experiment(fair)
    known = fair.desk.feedback._answers
    for client in fair.versions.values():
        client.free_deltas = 1
    asked = asyncio.ensure_future(fair.ask("ann"))
    while not known:  # it is held at its second token, and nobody has been told its end
        await asyncio.sleep(0)
    assert not asked.done()
    (name,) = known
    told = await fair.call("POST", "/v1/feedback", {"id": f"chatcmpl-{name}", "rating": "up"})
    assert told.status_code == 200, told.text
    for client in fair.versions.values():
        client.gate.set()
    assert (await asked).json()["id"] == f"chatcmpl-{name}"
    for client in fair.versions.values():
        client.refuses = Overloaded("chat", 1, 1)
    refused = await fair.ask("bob")
    assert refused.status_code == 429, refused.text
    assert list(known) == [name]


async def test_another_tenant_s_answer_and_one_that_nobody_gave_are_the_same(fair):
    await experiment(fair)
    answer = (await fair.ask("ann")).json()["id"]
    other = fair.ring.issue("eve", "other", "user", created=1)
    told = [
        await fair.call("POST", "/v1/feedback", {"id": name, "rating": "up"}, other) for name in (answer, "chatcmpl-0")
    ]
    assert [one.status_code for one in told] == [404, 404]
    assert told[0].text.replace(answer, "chatcmpl-0") == told[1].text


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/feedback", {"id": "chatcmpl-1"}, 400, "rating"),
        ("/v1/feedback", {"id": "chatcmpl-1", "rating": "meh"}, 400, "rating"),
        ("/v1/feedback", {"id": "chatcmpl-1", "score": 1.5}, 400, "score"),
        ("/v1/feedback", {"id": "chatcmpl-1", "score": 1, "comment": 5}, 400, "comment"),
        ("/v1/feedback", {"id": "chatcmpl-1", "stars": 5}, 400, "stars"),
        ("/v1/feedback", {"rating": "up"}, 400, "id"),
        ("/v1/experiments", {**TRIAL, "users": 20}, 400, "users"),
        ("/v1/experiments", {**TRIAL, "arms": {"v6": 50, "v7": 40}}, 400, "arms"),
        ("/v1/experiments", {**TRIAL, "arms": {"v6": 50, "v9": 50}}, 400, "arms.v9"),
        ("/v1/experiments", {**TRIAL, "arms": {"v6": 100}}, 400, "arms"),
        ("/v1/experiments", {**TRIAL, "metric": "joy"}, 400, "metric"),
        ("/v1/experiments", {**TRIAL, "effect": 0.8}, 400, "effect"),
        ("/v1/experiments", {**TRIAL, "name": "../x"}, 400, "name"),
        ("/v1/experiments", {**TRIAL, "model": "chart"}, 404, "model"),
        ("/v1/experiments", {**TRIAL, "until": "friday"}, 400, "until"),
        ("/v1/experiments/tone", {"action": "end"}, 404, None),
        ("/v1/experiments/tone", {"action": "stop"}, 400, "action"),
    ],
)
async def test_experiments_are_refused_in_openai_s_shape(fair, path, body, status, param):
    answer = await fair.call("POST", path, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


async def test_a_model_has_one_experiment_or_one_rollout(fair):
    await experiment(fair)
    assert (await fair.call("POST", "/v1/rollouts", {"model": "chat", "to": "v7"})).status_code == 409
    assert (await fair.call("POST", "/v1/experiments", {**TRIAL, "name": "more"})).status_code == 409
    await fair.call("POST", "/v1/experiments/tone", {"action": "end"})
    await begin(fair)
    assert (await fair.call("POST", "/v1/experiments", {**TRIAL, "name": "more"})).status_code == 409


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [("", "", 1.0), ("A b c", "a B c!", 1.0), ("a b", "c d", 0.0), ("a b c d", "a b", 2 / 3),
     ("七乘八", "七乘九", 2 / 3), ("...", "!", 0.0), ("a a a", "a", 0.5)],
)  # fmt: skip
def test_agreement(one, other, wanted):
    assert agreement(one, other) == pytest.approx(wanted)
