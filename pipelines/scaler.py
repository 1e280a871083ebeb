"""How many gangs a model has, as an autoscaling policy of Ray Serve: asks how they fare and has `scaling` decide.

Serve's controller makes a `Scaler` for each deployment and calls it at every turn of its loop, which nothing may hold
up: who is asked answers in another thread, and counts from the next turn on. What one decision leaves for the next is
Serve's policy state; a controller that is made anew begins as if what is there had just been asked for.

The class travels to the controller whole, with `cluster.scheduling.scaling`: that process may run other code of ours.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Protocol

from actors.settings import ModelSettings
from cluster.scheduling import scaling
from cluster.scheduling.scaling import Asked, Decision, Report, Rules, Seen, decide, remembered

ASK_SECONDS = 0.5
IDLE_SECONDS = 300.0

Answer = tuple[Mapping[str, Any], float]  # what `Demand.weigh` says, and how many seconds ago it did
Ask = Callable[[Mapping[str, Any]], Answer | None]


class Context(Protocol):
    """What of Serve's AutoscalingContext is looked at. `target_num_replicas`: there and starting."""

    current_num_replicas: int
    target_num_replicas: int
    current_time: float
    policy_state: dict[str, Any]


class Scaler:
    """One deployment's."""

    def __init__(
        self, model: str, rules: dict[str, Any], version: str = "", code: str = "", ask: Ask | None = None
    ) -> None:
        """`version` is the deployment's, for whoever deploys it again; other `code` is another policy to Serve."""
        self._model, self._rules, self._made_of = model, Rules(**rules), (version, code)
        self._ask = ask or Inquiry(model).ask

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """How many gangs there shall be, and what to be told of that the next time."""
        state, now, there = context.policy_state, context.current_time, context.target_num_replicas
        before: list[Asked] = state.get("asked") or [(now, there)]
        try:
            decision = self._decide(context, before)
        except Exception as wrong:
            logging.getLogger("ray.serve").exception("%s: how many gangs cannot be decided", self._model)
            return there, {**state, "told": self._told(Decision(there, f"it cannot be decided: {wrong!r}", there))}
        if decision.replicas != there:
            said = (self._model, decision.replicas, there, decision.reason)
            logging.getLogger("ray.serve").info("gangs_wanted model=%s wanted=%d before=%d reason=%s", *said)
        asked = remembered(before, now, decision.asked, self._rules.down_seconds)
        return decision.replicas, {"asked": asked, "told": self._told(decision)}

    def _decide(self, context: Context, before: list[Asked]) -> Decision:
        there = context.target_num_replicas
        ready = min(there, context.current_num_replicas)
        seen = Seen(context.current_time, (), ready, there - ready)
        answer = self._ask(context.policy_state.get("told", {}))
        if answer is not None:
            said, age = answer
            reports = [Report(**{**report, "age": report["age"] + age}) for report in said["reports"]]
            fresh = age <= self._rules.stale_seconds
            idle = said["idle"] + age if fresh else 0.0
            seen = Seen(context.current_time, reports, ready, there - ready, said["held"] if fresh else 0, idle)
            if not there and not said["known"]:
                return Decision(max(1, self._rules.least), "no gang has said yet how long its prompts may be", 1)
        return decide(seen, self._rules, before)

    def _told(self, decision: Decision) -> dict[str, Any]:
        return {
            "wanted": decision.replicas,
            "reason": decision.reason,
            "min": self._rules.least,
            "max": self._rules.most,
        }


class Inquiry:
    """Asks the actor that knows, in a thread, at most every `ASK_SECONDS`."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, "demand")
        self._asking: Future[Mapping[str, Any]] | None = None
        self._asked = self._heard = float("-inf")
        self._said: Mapping[str, Any] | None = None
        self._actor: Any = None

    def ask(self, told: Mapping[str, Any]) -> Answer | None:
        """The last answer, None before the first; `told` is what was decided last."""
        now = time.monotonic()
        if self._asking is not None and self._asking.done():
            if self._asking.exception() is None:
                self._said, self._heard = self._asking.result(), self._asked
            self._asking = None
        if self._asking is None and now - self._asked >= ASK_SECONDS:
            self._asked, self._asking = now, self._thread.submit(self._weigh, dict(told))
        return None if self._said is None else (self._said, now - self._heard)

    def _weigh(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        import ray  # noqa: PLC0415 - the rest is tested without it

        try:
            if self._actor is None:
                self._actor = ray.get_actor("demand", namespace="strata")
            said: Mapping[str, Any] = ray.get(self._actor.weigh.remote(self._model, told), timeout=5)
        except Exception:
            self._actor = None  # it is being remade, perhaps under a new handle
            raise
        return said


def rules(model: ModelSettings) -> Rules:
    """What the settings say. Raises ValueError for a model that does not scale."""
    wanted = model.scaling
    if wanted is None:
        raise ValueError(f"{model.name} does not scale")
    return Rules(
        least=wanted.min,
        most=wanted.max,
        wait_seconds=wanted.wait_seconds,
        first_token_seconds=wanted.first_token_seconds,
        kv_used=wanted.kv_used,
        running=wanted.running,
        requests_per_second=wanted.requests_per_second,
        down_seconds=wanted.down_seconds,
        idle_seconds=None if wanted.min else wanted.idle_seconds or IDLE_SECONDS,
    )


def config(model: ModelSettings, version: str, standing: tuple[str, int] | None, code: str) -> Any:
    """Serve's AutoscalingConfig of a model that scales. `standing`: the version that runs and how many gangs of it.

    What is new or has changed starts a gang at least, so that a deploy can tell whether it answers; what has not stays
    as it is. Serve's own factors and delays are off: `scaling` has its own. `code` makes changed code another policy.
    """
    from ray import cloudpickle  # noqa: PLC0415 - what travels needs neither
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy  # noqa: PLC0415

    wanted = rules(model)
    first: int | None = model.first_replicas
    if standing is not None:
        first = None if standing[0] == version else min(wanted.most, max(model.first_replicas, standing[1]))
    cloudpickle.register_pickle_by_value(scaling)
    try:
        policy = AutoscalingPolicy(
            policy_function=Scaler,
            policy_kwargs={"model": model.name, "rules": asdict(wanted), "version": version, "code": code},
        )
    finally:
        cloudpickle.unregister_pickle_by_value(scaling)
    return AutoscalingConfig(
        min_replicas=wanted.least,
        max_replicas=wanted.most,
        initial_replicas=first,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        downscale_to_zero_delay_s=0.0,
        policy=policy,
    )
