import asyncio
import json
from dataclasses import dataclass

import pytest

from pipelines.routing import guide as guides
from pipelines.routing.guide import ANSWERS_A_USER, STALL_SECONDS, Guide, full, refuses
from pipelines.routing.route import Facts, Ramp, Route


@dataclass
class Measured:
    ttft: float = 0.1
    itl: float | None = 0.01


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def table(revision: int = 3, share: float = 50.0, **more):
    ramp = {"old": "v6", "new": "v7", "share": share}
    route = {"weights": {"v6": 100.0}, "seeds": {}, "ramp": ramp, "settings": {}}
    return {"revision": revision, "routes": {"chat": route | more}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guide(clock: Clock) -> Guide:
    made = Guide({"chat": Route("chat", {"v6": 100.0})}, clock=clock)
    made.take(table())
    return made


def users(guide: Guide, version: str, count: int) -> list[Facts]:
    every = (Facts("acme", f"user-{number}") for number in range(10_000))
    return [facts for facts in every if guide.way("chat", facts).version == version][:count]


def test_before_anything_is_heard_the_settings_count():
    made = Guide({"chat": Route("chat", {"v6": 100.0})})
    way = made.way("chat", Facts("acme", "ann"))
    assert (way.version, way.served, way.counts, way.instead) == ("v6", "chat@v6", False, None)
    assert made.way("other", Facts("acme", "ann")) is None
    assert full("chat", "base") == "chat"


def test_who_is_on_the_ramp_counts_and_has_somebody_who_answers_instead(guide):
    way = guide.way("chat", users(guide, "v7", 1)[0])
    assert (way.by, way.counts, way.instead.version, way.instead.counts) == ("ramp", True, "v6", False)
    assert guide.way("chat", users(guide, "v6", 1)[0]).instead is None


def test_what_was_answered_is_told_once_and_again_until_it_was_heard(guide, clock):
    for facts in users(guide, "v7", 3):
        witness = guide.begin(guide.way("chat", facts))
        witness.figures = Measured()
        clock.now += 0.5
        witness.done("Fifty-six.", cut=False, tokens=9)
        witness.failed()  # it has been told
    guide.begin(guide.way("chat", users(guide, "v6", 1)[0])).failed()
    first = json.loads(json.dumps(guide.report()))
    assert guide.report()["number"] == first["number"]
    arms = {each["version"]: each["arm"] for each in first["arms"]}
    assert (arms["v7"]["answers"], arms["v7"]["errors"], arms["v6"]["errors"]) == (3, 0, 1)
    assert sum(count for _, count in arms["v7"]["ttft"]) == 3
    assert first["ready"] == {"chat@v6": True, "chat@v7": True}
    assert first["revision"] == 3
    guide.told(first["number"])
    assert guide.report()["arms"] == []


def test_one_user_is_one_user(guide):
    (facts,) = users(guide, "v7", 1)
    for _ in range(3 * ANSWERS_A_USER):
        guide.begin(guide.way("chat", facts)).failed()
    (arm,) = guide.report()["arms"]
    assert arm["arm"]["answers"] == ANSWERS_A_USER


def test_who_goes_away_and_who_began_before_the_step_say_nothing(guide):
    (facts,) = users(guide, "v7", 1)
    guide.begin(guide.way("chat", facts)).dropped()
    witness = guide.begin(guide.way("chat", facts))
    guide.take(table(revision=4))
    witness.failed()
    assert guide.report()["arms"] == []


def test_a_step_of_another_model_is_nothing_to_this_one(guide):
    """Nor is a controller that was started again: who is counted stays counted, who is under way is heard."""
    guide.take(table(revision=4, since=4))
    (facts,) = users(guide, "v7", 1)
    for _ in range(ANSWERS_A_USER - 1):
        guide.begin(guide.way("chat", facts)).failed()
    witness = guide.begin(guide.way("chat", facts))
    guide.take(table(revision=9, since=4))
    witness.failed()
    for _ in range(ANSWERS_A_USER):
        guide.begin(guide.way("chat", facts)).failed()
    (arm,) = guide.report()["arms"]
    assert (arm["arm"]["answers"], arm["revision"]) == (ANSWERS_A_USER, 4)
    guide.take(table(revision=10, since=10))
    guide.begin(guide.way("chat", facts)).failed()
    guide.told(guide.report()["number"])
    (arm,) = guide.report()["arms"]
    assert (arm["arm"]["answers"], arm["revision"]) == (1, 10)


def test_who_waits_for_ever_has_been_failed(guide, clock):
    (facts,) = users(guide, "v7", 1)
    hung, speaks = (guide.begin(guide.way("chat", facts)) for _ in range(2))
    speaks.figures = Measured(itl=None)
    clock.now += STALL_SECONDS + 1
    (arm,) = guide.report()["arms"]
    assert (arm["arm"]["answers"], arm["arm"]["errors"]) == (1, 1)
    hung.done("at last", cut=False, tokens=2)
    guide.told(1)
    assert guide.report()["arms"] == []


def test_tokens_that_trickle_are_told_of_once_and_before_the_answer_ends(guide, clock):
    guide.take(table(revision=9, since=4))  # other models have moved since this one's step began
    (facts,) = users(guide, "v7", 1)
    slow = guide.begin(guide.way("chat", facts))
    slow.figures = Measured(itl=3.0)
    clock.now += STALL_SECONDS - 1
    assert guide.report()["arms"] == []
    guide.told(1)
    clock.now += 2
    (arm,) = guide.report()["arms"]
    assert (arm["arm"]["answers"], arm["arm"]["errors"], [count for _, count in arm["arm"]["itl"]]) == (0, 0, [1])
    guide.told(2)
    assert guide.report()["arms"] == []
    guide.told(3)
    slow.done("at last", cut=False, tokens=9)
    (arm,) = guide.report()["arms"]
    assert (arm["arm"]["answers"], arm["arm"]["itl"], len(arm["arm"]["ttft"])) == (1, [], 1)


def test_what_trickles_on_from_before_the_step_says_nothing(guide, clock):
    (facts,) = users(guide, "v7", 1)
    guide.begin(guide.way("chat", facts)).figures = Measured(itl=3.0)
    guide.take(table(revision=4))
    clock.now += STALL_SECONDS + 1
    assert guide.report()["arms"] == []


def test_a_version_without_a_replica_is_passed_over():
    ready = {"chat@v6"}
    made = Guide({"chat": Route("chat", {"v6": 100.0}, ramp=Ramp("v6", "v7", 100.0))}, ready=lambda name: name in ready)
    way = made.way("chat", Facts("acme", "ann"))
    assert (way.version, way.by, way.counts) == ("v6", "not ready", False)
    ready.clear()
    assert made.way("chat", Facts("acme", "ann")).version == "v7", "it waits where it belongs"


def test_versions_that_are_compared_are_woken_and_kept_awake():
    asleep, roused = {"chat@v7", "chat@v8"}, []

    def rouse(served: str) -> bool:
        roused.append(served)
        return served not in asleep

    made = Guide({"chat": Route("chat", {"v6": 100.0}), "code": Route("code", {"v1": 100.0})}, rouse=rouse)
    made.take(table(versions=["v6", "v7", "v8"]))
    ready = made.report()["ready"]
    assert ready == {"chat@v6": True, "chat@v7": False, "chat@v8": True, "code@v1": True}, "v8 sleeps on"
    assert sorted(roused) == ["chat@v6", "chat@v7"]
    asleep.clear()
    assert made.report()["ready"]["chat@v7"]
    assert len(roused) == 4, "again with each report"
    made.take(table(4, ramp=None, weights={"v6": 50.0, "v8": 50.0}))
    made.report()
    assert len(roused) == 4, "nothing is compared any more"
    made.take(table(5, ramp=None, weights={"v6": 50.0, "v8": 50.0}, trial=["tone", "liked"]))
    made.report()
    assert sorted(roused[4:]) == ["chat@v6", "chat@v8"]


def test_a_route_to_what_is_not_served_here_is_left_alone(clock):
    served = {"chat@v6", "chat@v7"}
    made = Guide({"chat": Route("chat", {"v6": 100.0})}, served=lambda name: name in served, clock=clock)
    made.take(table(2, weights={"v9": 100.0}, ramp=None))
    assert made.routes["chat"].weights == {"v6": 100.0}
    made.take(table(3, settings={"rules": "nonsense"}))
    assert (made.routes["chat"].ramp, made.revision) == (None, 3)
    made.take(table(4, settings={"rules": [{"when": {"headers": {"x-beta": "1"}}, "to": "v7"}]}))
    assert made.headers == {b"x-beta"}


async def test_it_follows_whoever_decides_and_goes_on_while_nobody_does(monkeypatch):
    monkeypatch.setattr(guides, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(guides, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(guides, "REPORT_SECONDS", 0.001)
    away, reports, revisions = True, [], asyncio.Queue()

    class Far:
        async def watch(self, gateway, revision, seconds):
            if away:
                raise ConnectionError
            return table(await revisions.get())

        async def report(self, gateway, report):
            reports.append(report)
            return report["number"]

    made = Guide({"chat": Route("chat", {"v6": 100.0})})
    await made.start(Far(), seconds=0.01)
    assert made.revision == 0, "nobody was heard, and it answers all the same"
    away = False
    for revision in (7, 8):
        revisions.put_nowait(revision)
        while not reports or reports[-1]["revision"] != revision:
            await asyncio.sleep(0)
    assert made.routes["chat"].ramp.share == 50
    made.close()


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ("I'm sorry, but I can't help with that.", True), ("  抱歉，我无法回答这个问题。", True),
        ("I cannot do that", True),
        ("That is hard. I'm unable to say", True), ("Fifty-six.", False), ("I can do that", False), ("", False),
    ],
)  # fmt: skip
def test_how_refusals_begin(head, wanted):
    assert refuses(head) is wanted
