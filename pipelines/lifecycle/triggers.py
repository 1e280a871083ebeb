"""Whether a run is due, and why: one function of what is declared, what there is, what was seen, and what time it is.

Knows values. Looks at no file, no registry and no clock.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from cluster.condition import parse
from pipelines.lifecycle import cron
from pipelines.lifecycle.declared import Drift, Triggers, seconds
from pipelines.lifecycle.drift import said


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is now. `requests`: open merge requests of others than runs, each with the commit of its source.

    `done`: the last run of each pipeline that is done. `busy`: a run of this pipeline is not over.
    """

    data: str | None = None
    requests: Mapping[int, str] = field(default_factory=dict)
    statistics: Mapping[str, float] = field(default_factory=dict)
    answers: int = 0
    done: Mapping[str, str] = field(default_factory=dict)
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What runs have begun for. `clock`: when one by the clock was due last, or when the watch began."""

    clock: float
    data: str | None = None
    requests: Mapping[int, str] = field(default_factory=dict)
    done: str | None = None
    drifted: float | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"requests": {str(number): commit for number, commit in self.requests.items()}}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What JSON kept."""
        known = {each.name: plain[each.name] for each in fields(cls) if each.name in plain}
        return cls(**known | {"requests": {int(number): commit for number, commit in known["requests"].items()}})


@dataclass(frozen=True, slots=True)
class Due:
    """Why a run is to begin; `request`: the number of the merge request that it is for."""

    why: str
    request: int | None = None


def first(on: Triggers, facts: Facts, now: float) -> Seen:
    """What is there when the watch begins is nothing new, but for merge requests that wait already."""
    return Seen(now, facts.data, {}, facts.done.get(on.after or ""))


def due(on: Triggers, facts: Facts, seen: Seen, now: float) -> tuple[Due | None, Seen]:
    """The run that is due, if one is, and what will have been seen once it has begun.

    One run of a pipeline at a time: what happens meanwhile is due afterwards, and once, however often it happened.
    """
    open_now = {number: commit for number, commit in seen.requests.items() if number in facts.requests}
    seen = replace(seen, requests=open_now)
    if facts.busy:
        return None, seen
    for look in (_request, _data, _clock, _after, _drift):
        found = look(on, facts, seen, now)
        if found is not None:
            return found
    return None, seen


Found = tuple[Due, Seen] | None


def _request(on: Triggers, facts: Facts, seen: Seen, _now: float) -> Found:
    for number, commit in sorted(facts.requests.items()) if on.merge_request else ():
        if seen.requests.get(number) != commit:
            why = f"merge request !{number} at {commit[:12]}"
            return Due(why, number), replace(seen, requests={**seen.requests, number: commit})
    return None


def _data(on: Triggers, facts: Facts, seen: Seen, _now: float) -> Found:
    if not on.data or facts.data is None or facts.data == seen.data:
        return None
    return Due(f"new data {facts.data[:12]}"), replace(seen, data=facts.data)


def _clock(on: Triggers, _facts: Facts, seen: Seen, now: float) -> Found:
    if on.schedule is not None:
        at = cron.after(cron.parse(on.schedule, "on.schedule"), seen.clock)
        if at is not None and at <= now:
            return Due(f"schedule {on.schedule}"), replace(seen, clock=now)
    if on.every is not None and now - seen.clock >= seconds(on.every):
        return Due(f"every {on.every}"), replace(seen, clock=now)
    return None


def _after(on: Triggers, facts: Facts, seen: Seen, _now: float) -> Found:
    done = facts.done.get(on.after) if on.after else None
    if done is None or done == seen.done:
        return None
    return Due(f"{done} is done"), replace(seen, done=done)


def _drift(on: Triggers, facts: Facts, seen: Seen, now: float) -> Found:
    if on.drift is None or not drifts(on.drift, facts):
        return None
    if seen.drifted is not None and now - seen.drifted < seconds(on.drift.rest):
        return None
    metric = parse(on.drift.rule, "on.drift.rule").metric
    return Due(f"drift: {on.drift.rule}, it is {said(metric, facts.statistics[metric])}"), replace(seen, drifted=now)


def drifts(drift: Drift, facts: Facts) -> bool:
    """Whether the rule holds for enough answers."""
    return facts.answers >= drift.answers and parse(drift.rule, "on.drift.rule").holds(facts.statistics) is True
