"""Serve's autoscaling policy, on contexts as Serve gives them and answers as the demand actor does."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.demand import Demand, Fare
from actors.directory import Directory
from actors.replicas import Hold, Replicas
from actors.roster import Roster
from actors.settings import ModelSettings
from actors.wishes import Wishes
from pipelines import scaler
from pipelines.scaler import Answer, Scaler
from tests.actors.engine.remembering import continuation
from tests.actors.engine.test_lately import Clock
from tests.actors.test_link import MODEL, lead, until_ready
from tests.contracts.client import PROMPT, collect, greedy, tokens

BUSY = {"age": 1.0, "waiting": 3.0, "kv_used": 0.1, "running": 1.0, "first_token": 0.0, "requests_per_second": 1.0}
CALM = {**BUSY, "waiting": 0.0, "running": 0.4}


def model(**scaling: Any) -> ModelSettings:
    return ModelSettings.model_validate({"name": "m", "path": "p", "scaling": {"max": 8, **scaling}})


@dataclass
class Context:
    """What Serve's controller keeps between two calls."""

    current_num_replicas: int
    target_num_replicas: int
    current_time: float = 1000.0
    policy_state: dict[str, Any] = field(default_factory=dict)


class Fleet:
    """A controller that does at once what the policy says; gangs start when told to."""

    def __init__(self, gangs: int, **scaling: Any) -> None:
        self.context = Context(gangs, gangs)
        self.answer: Answer | None = None
        self.told: list[Mapping[str, Any]] = []
        self.policy = Scaler("m", asdict(scaler.rules(model(**scaling))), ask=self.ask)

    def ask(self, told: Mapping[str, Any]) -> Answer | None:
        self.told.append(told)
        return self.answer

    def say(self, report: Mapping[str, Any] | None, age: float = 0.0, **more: Any) -> None:
        reports = [report] * self.context.current_num_replicas if report else []
        self.answer = {"reports": reports, "held": 0, "idle": 0.0, "known": True, **more}, age

    def turn(self, seconds: float = 1.0) -> int:
        context = self.context
        context.current_time += seconds
        context.target_num_replicas, context.policy_state = self.policy(context)
        context.current_num_replicas = min(context.current_num_replicas, context.target_num_replicas)
        return context.target_num_replicas

    def start(self) -> None:
        self.context.current_num_replicas = self.context.target_num_replicas

    @property
    def reason(self) -> str:
        return str(self.context.policy_state["told"]["reason"])


def test_up_at_once_by_whole_gangs_and_those_that_start_count() -> None:
    fleet = Fleet(2)
    fleet.say(BUSY)
    assert fleet.turn() == 4
    assert "queues at 300%" in fleet.reason
    fleet.say(BUSY)  # still two answer
    assert fleet.turn() == 4
    fleet.start()
    fleet.say(BUSY)
    assert (fleet.turn(), fleet.turn()) == (8, 8)


def test_down_only_when_nothing_asked_for_more_for_a_while() -> None:
    fleet = Fleet(2, down_seconds=60)
    fleet.say(BUSY)
    assert fleet.turn() == 4
    fleet.start()
    fleet.say(CALM)
    assert fleet.turn(59) == 4
    assert "asked for within the last 60 s" in fleet.reason
    assert fleet.turn(2) == 2


def test_a_new_controller_ends_nothing_that_it_has_not_watched() -> None:
    fleet = Fleet(6, down_seconds=60)
    fleet.say(CALM)
    assert fleet.turn() == 6
    assert fleet.turn(30) == 6
    assert fleet.turn(40) == 3


def test_old_news_hold_whoever_they_are_late_from() -> None:
    fleet = Fleet(3, down_seconds=0)
    assert fleet.turn() == 3  # nobody has answered yet
    fleet.say({**CALM, "age": 16.0})
    assert fleet.turn() == 3
    assert "nobody has reported" in fleet.reason
    fleet.say(CALM, age=16.0)  # the gangs report, but to somebody who does not answer
    assert fleet.turn() == 3
    fleet.say(CALM)
    assert fleet.turn() == 2


def test_to_none_when_nobody_asks_and_up_for_what_is_held() -> None:
    fleet = Fleet(3, min=0, idle_seconds=20)
    fleet.say(CALM, idle=19.0)
    assert fleet.turn() == 3
    fleet.say(CALM, idle=20.0)
    assert fleet.turn() == 0
    fleet.say(None, idle=30.0)
    assert fleet.turn() == 0
    fleet.say(None, held=2)
    assert fleet.turn() == 1
    assert "2 requests wait for the first gang" in fleet.reason
    fleet.say(None, held=2)
    assert fleet.turn() == 1, "it is starting"


def test_a_gang_that_starts_is_waited_for_though_nobody_asks() -> None:
    """It may take longer to start than it may idle."""
    fleet = Fleet(0, min=0, idle_seconds=20)
    fleet.context.target_num_replicas = 1
    fleet.say(None, known=False, idle=600.0)
    assert fleet.turn() == 1
    fleet.start()
    fleet.say(None, idle=600.0)
    assert fleet.turn() == 1, "it has not reported yet, and who asks for it may be on his way"
    fleet.say(CALM, idle=0.0)
    assert fleet.turn() == 1


def test_silence_is_no_idleness() -> None:
    fleet = Fleet(1, min=0, idle_seconds=20)
    fleet.say(CALM, idle=10.0, age=16.0)
    assert fleet.turn() == 1


def test_of_whom_nobody_knows_what_it_holds_one_gang_starts_to_say() -> None:
    fleet = Fleet(0, min=0)
    fleet.say(None, known=False, idle=1e6)
    assert fleet.turn() == 1


def test_what_is_decided_is_told_with_its_bounds() -> None:
    fleet = Fleet(2, min=1)
    fleet.say(BUSY)
    fleet.turn()
    fleet.turn()
    assert fleet.told == [{}, {"wanted": 4, "reason": fleet.told[1]["reason"], "min": 1, "max": 8}]


def test_nothing_that_goes_wrong_here_reaches_serve_s_loop() -> None:
    fleet = Fleet(2)
    fleet.answer = {"reports": [{"unknown": 1}]}, 0.0
    assert fleet.turn() == 2
    assert "cannot be decided" in fleet.reason


def test_the_past_that_is_kept_stays_small() -> None:
    fleet = Fleet(2)
    fleet.say(BUSY)
    for _ in range(500):
        fleet.turn(0.3)
    assert len(fleet.context.policy_state["asked"]) < 10


def test_the_controller_needs_none_of_our_code(tmp_path: Path) -> None:
    """It may have been started by another deploy, from another folder."""
    config = scaler.config(model(min=0), "v1", None, "code")
    (tmp_path / "policy").write_bytes(config.policy.get_serialized_policy_def())
    script = (
        "import sys; from types import SimpleNamespace as N; from ray import cloudpickle\n"
        "kind = cloudpickle.loads(open('policy', 'rb').read())\n"
        f"made = kind(**{config.policy.policy_kwargs!r}, "
        "ask=lambda told: ({'reports': [], 'held': 1, 'idle': 0.0, 'known': True}, 0.0))\n"
        "print(made(N(current_num_replicas=0, target_num_replicas=0, current_time=1.0, policy_state={}))[0])\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] in ('actors', 'cluster', 'pipelines')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, env={}
    )
    assert done.stdout.strip() == "1", done.stderr


@pytest.mark.parametrize(
    ("standing", "first"), [(None, 1), (("v1", 5), None), (("v0", 5), 5), (("v0", 0), 1), (("v0", 99), 8)]
)
def test_a_deploy_starts_a_gang_of_what_has_changed_and_leaves_the_rest_as_it_is(
    standing: tuple[str, int] | None, first: int | None
) -> None:
    config = scaler.config(model(min=0), "v1", standing, "code")
    assert (config.min_replicas, config.max_replicas, config.initial_replicas) == (0, 8, first)


def test_other_code_of_the_policy_is_another_policy() -> None:
    made = [scaler.config(model(), "v1", None, code).policy for code in ("a", "a", "b")]
    assert made[0] == made[1] != made[2]


def test_only_what_scales_has_rules() -> None:
    assert scaler.rules(model(min=0)).idle_seconds == scaler.IDLE_SECONDS
    assert scaler.rules(model(min=1)).idle_seconds is None
    with pytest.raises(ValueError, match="does not scale"):
        scaler.rules(ModelSettings(name="m", path="p"))


class Actor:
    """Answers in the asking thread."""

    def __init__(self) -> None:
        self.failing = False

    def weigh(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.failing:
            raise ConnectionError
        return {"told": told}


def test_an_inquiry_never_waits_and_says_how_old_its_answer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now, actor, inquiry = [0.0], Actor(), scaler.Inquiry("m")
    monkeypatch.setattr(scaler.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(inquiry, "_weigh", actor.weigh)

    def ask(seconds: float) -> Answer | None:
        now[0] += seconds
        inquiry.ask({"n": now[0]})
        if inquiry._asking is not None:
            inquiry._asking.exception(timeout=20)
        return inquiry.ask({})

    assert inquiry.ask({"n": 0}) is None
    assert ask(0.0) == ({"told": {"n": 0}}, 0.0)
    assert ask(0.4) == ({"told": {"n": 0}}, 0.4), "too early to ask again"
    assert ask(0.2) == ({"told": {"n": 0.6000000000000001}}, 0.0)
    actor.failing = True
    assert ask(1.0) == ({"told": {"n": 0.6000000000000001}}, 1.0)


class Controlled:
    """Serve's own bookkeeping of one deployment that scales, as its controller keeps it, without a controller."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, standing: tuple[str, int] | None = None, **scaling: Any
    ) -> None:
        from ray.serve._private import autoscaling_state
        from ray.serve._private.autoscaling_state import DeploymentAutoscalingState
        from ray.serve._private.common import DeploymentID
        from ray.serve._private.config import DeploymentConfig

        seconds = itertools.count(1000.0)
        monkeypatch.setattr(autoscaling_state, "time", SimpleNamespace(time=lambda: next(seconds), monotonic=None))
        self.id = DeploymentID("model-m", "strata")
        self.state = DeploymentAutoscalingState(self.id)
        wire = DeploymentConfig(
            autoscaling_config=scaler.config(model(**scaling), "v1", standing, "c")
        ).to_proto_bytes()
        info: Any = SimpleNamespace(
            deployment_config=DeploymentConfig.from_proto_bytes(wire),
            target_capacity=None,
            target_capacity_direction=None,
        )
        self.target = self.state.register(info, standing[1] if standing else 0)
        self.said: dict[str, Any] = {"reports": [], "held": 0, "idle": 0.0, "known": True}
        self.state._policy.__wrapped__._ask = lambda told: (self.said, 0.0)  # type: ignore[union-attr]

    def turn(self, running: int, **said: Any) -> int:
        from ray.serve._private.common import ReplicaID

        self.said |= said
        self.state.update_running_replica_ids([ReplicaID(str(number), self.id) for number in range(running)])
        self.target = self.state.get_decision_num_replicas(self.target)
        return self.target


def test_serve_s_own_bookkeeping_follows_the_policy_from_none_to_the_most_and_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Controlled(monkeypatch, min=0, max=3, down_seconds=0, idle_seconds=5)
    assert fleet.target == 1, "a deploy proves one gang"
    assert fleet.turn(0) == 1
    assert fleet.turn(1, reports=[BUSY]) == 2
    assert fleet.turn(1) == 2
    assert fleet.turn(2, reports=[BUSY, BUSY]) == 3, "Serve holds it to max as well"
    assert fleet.turn(3, reports=[CALM] * 3) == 2
    assert fleet.turn(2, reports=[{**CALM, "running": 0.1}] * 2) == 1
    assert fleet.turn(1, reports=[CALM], idle=6.0) == 0
    assert fleet.turn(0, reports=[]) == 0
    assert fleet.turn(0, held=1, idle=0.0) == 1


def test_from_several_to_none_takes_serve_two_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """It allows none only after one: whoever is asked in between is still there."""
    fleet = Controlled(monkeypatch, ("v1", 3), min=0, max=3, idle_seconds=5)
    assert fleet.target == 3
    assert fleet.turn(3, reports=[CALM] * 3, idle=6.0) == 1
    assert fleet.turn(1) == 0


async def test_a_model_that_sleeps_is_woken_by_the_request_that_it_then_answers() -> None:
    """The real gateway's end, directory and demand; the test is Serve, which starts and ends gangs as it is told."""
    clock, directory = Clock(), Directory()
    demand, fleet = Demand(clock), Fleet(1, min=0, idle_seconds=20)
    replicas = Replicas(MODEL, hold=Hold(60.0, 4), sleeps=True)
    wishes, roster = Wishes({MODEL: replicas}, demand.wishes, seconds=0.001), Roster({MODEL: replicas}, directory.watch)

    async def turn(held: int = 0) -> int:
        async with asyncio.timeout(20):
            while (said := await demand.weigh(MODEL, {}))["held"] != held:
                await asyncio.sleep(0)
        fleet.answer = said, 0.0
        return fleet.turn()

    wishes.start()
    roster.start()
    first = await lead(directory, "one")
    await until_ready(replicas)
    fare = Fare(0.0, 0.0, 0.0, 0.0, 0.0, busy=False, context_tokens=64)
    await demand.fares(MODEL, "one", fare)
    clock.now += 19
    await demand.fares(MODEL, "one", fare)
    assert await turn() == 1
    clock.now += 1
    assert await turn() == 0
    await directory.withdraw("one")
    first.close()
    async with asyncio.timeout(20):
        while replicas.loads:
            await asyncio.sleep(0)
    assert replicas.ready
    asked = asyncio.create_task(replicas.submit(PROMPT, greedy(), seed=1))
    assert await turn(held=1) == 1
    second = await lead(directory, "two")
    assert tokens(await collect(await asked)) == continuation(PROMPT, 8)
    wishes.close()
    await roster.close()
    second.close()
