"""How many gangs a model shall have, by what those it has report. Reports in, a number and its reason out.

Scales on what a client feels and on what fills up: the wait in the queues, the KV cache, the places for running
sequences, the time to the first token, and requests per second where the settings name a bound. Never on processors: a
gang computes with all it has whether it is late or not. Up at once, counting gangs that are still starting; down
slowly, to the most that was asked for within a window, as Kubernetes' HorizontalPodAutoscaler does. Old reports
are none: then all stays as it is. Knows no clock, no Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds and targets. A target that is None is not looked at.

    `kv_used` and `running`: shares of what a gang has. `wait_seconds`: of work that waits in a gang's queue.
    `factor`: at most as many times the gangs at once. `idle_seconds`: without any request, until none is left; None:
    `least` gangs always stay.
    """

    least: int = 1
    most: int = 1
    wait_seconds: float | None = 1.0
    first_token_seconds: float | None = None
    kv_used: float | None = 0.8
    running: float | None = 0.8
    requests_per_second: float | None = None
    tolerance: float = 0.1
    factor: float = 2.0
    down_seconds: float = 300.0
    idle_seconds: float | None = None
    stale_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Report:
    """One gang, `age` seconds ago. `waiting`: seconds of work in its queue; `first_token`: seconds, of late."""

    age: float
    waiting: float = 0.0
    kv_used: float = 0.0
    running: float = 0.0
    first_token: float = 0.0
    requests_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known now. `held`: requests that wait for the first gang; `idle`: seconds since the last request."""

    now: float
    reports: Sequence[Report]
    ready: int
    starting: int = 0
    held: int = 0
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """How many there shall be, and why. `asked` is what now alone asks for, to be shown to later decisions."""

    replicas: int
    reason: str
    asked: int


Asked = tuple[float, int]  # when, and how many were asked for


def decide(seen: Seen, rules: Rules, before: Sequence[Asked] = ()) -> Decision:
    """The number for now. `before`: what was asked for within `rules.down_seconds`, in any order."""
    there = seen.ready + seen.starting
    if there == 0:
        wanted = max(rules.least, 1 if seen.held else 0)
        return Decision(wanted, f"{seen.held} requests wait for the first gang" if seen.held else "nobody asks", wanted)
    fresh = [report for report in seen.reports if report.age <= rules.stale_seconds]
    if not fresh:  # also while the first gang starts: who has it started sees it up, if only to know that it can be
        return Decision(there, "nobody has reported of late: all stays", there)
    if rules.idle_seconds is not None and not seen.held and seen.idle >= rules.idle_seconds:
        return Decision(rules.least, f"no request for {seen.idle:.0f} s", rules.least)
    asked, reason = _asked(seen, rules, fresh)
    if asked > rules.most:
        reason = f"{reason}; {rules.most} are the most"
    asked = min(rules.most, max(rules.least, 1, asked))
    if asked >= there:
        return Decision(asked, reason, asked)
    recent = max((count for when, count in before if seen.now - when <= rules.down_seconds), default=asked)
    kept = min(there, max(asked, recent))
    if kept > asked:
        reason = f"{reason}; {kept} were asked for within the last {rules.down_seconds:.0f} s"
    return Decision(kept, reason, asked)


def remembered(before: Sequence[Asked], now: float, asked: int, seconds: float) -> list[Asked]:
    """What a decision at `now` that asked for `asked` leaves for later ones to be shown; few, however many came before.

    What is older than `seconds` goes, and what a later one asked as much as: the most within any time stays the same.
    """
    return [each for each in before if now - each[0] <= seconds and each[1] > asked] + [(now, asked)]


def _asked(seen: Seen, rules: Rules, fresh: Sequence[Report]) -> tuple[int, str]:
    """What the reports ask for, as if gangs that have not reported were like the others."""
    loads = [
        (name, sum(getattr(report, field) for report in fresh) / len(fresh) / target)
        for name, field, target in (
            ("queues", "waiting", rules.wait_seconds),
            ("first tokens", "first_token", rules.first_token_seconds),
            ("KV caches", "kv_used", rules.kv_used),
            ("running sequences", "running", rules.running),
            ("requests per second", "requests_per_second", rules.requests_per_second),
        )
        if target is not None
    ]
    name, load = max(loads, key=lambda each: each[1], default=("nothing", 0.0))
    share = min(load, rules.factor)
    if abs(share - 1.0) <= rules.tolerance:
        return seen.ready + seen.starting, f"{name} at {load:.0%} of the target: as it should be"
    return math.ceil(seen.ready * share - 1e-9), f"{name} at {load:.0%} of the target"
