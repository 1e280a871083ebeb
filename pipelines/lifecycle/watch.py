"""The watch over pipelines: begins runs that are due, takes up those whose driver died or whose people have decided.

A plain class that a process of its own runs. Gathers facts and acts; what is due is decided in `triggers`, which run is
taken up in `revived`.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.registry.history import HEADS
from actors.registry.requests import State as RequestState
from cluster.errors import StrataError
from pipelines.lifecycle import checks, drift, examples, places, starting, triggers
from pipelines.lifecycle.declared import Pipeline, kept, seconds
from pipelines.lifecycle.drift import Counts
from pipelines.lifecycle.drive import driven
from pipelines.lifecycle.run import UNDER_WAY, Event, Run, State, run_of, upcoming
from pipelines.lifecycle.runs import Runs
from pipelines.lifecycle.triggers import Facts, Seen
from pipelines.lifecycle.watched import Watched
from pipelines.settings import Settings, load
from pipelines.versions import registry_of

Clock = Callable[[], float]
log = logging.getLogger("strata.pipelines")

LOOK_SECONDS = 5.0
QUIET_SECONDS = 60.0  # that a job has to begin to drive
ATTEMPTS = 5  # of a step, whose driver died each time


@dataclass(slots=True)
class Memory:
    """What a watch remembers of one pipeline between two looks, and can do without."""

    stamps: Any = None
    data: str | None = None
    served: str | None = None
    counts: list[tuple[float, Counts]] = field(default_factory=list)


class Watch:
    """Of the pipelines in the tables of the settings that `surroundings` lead to."""

    def __init__(
        self, surroundings: Mapping[str, Any], clock: Clock = time.time, ask: Callable[..., str] | None = None
    ) -> None:  # fmt: skip
        self._around, self._clock, self._ask = surroundings, clock, ask or _metrics
        self._memory: dict[str, Memory] = {}
        self._tried: dict[str, float] = {}

    def look(self) -> list[str]:
        """Begin and take up what is due; the runs that it was."""
        settings = settings_of(self._around)
        begun = [run for each in places.watches_of(settings).all() if (run := self._look(settings, each))]
        return begun + self._revive(settings)

    def _look(self, settings: Settings, each: Watched) -> str | None:
        watches = places.watches_of(settings)
        try:
            run = self._due(each)
            problem = ""
        except StrataError as wrong:
            run, problem = None, str(wrong)
        except Exception as wrong:  # whatever it is, the pipelines after this one are looked at
            run, problem = None, f"{type(wrong).__name__}: {wrong}"
            log.exception("pipeline_not_looked_at", extra={"pipeline": each.pipeline})
        if problem != each.problem:
            watches.trouble(each.pipeline, problem)
        return run

    def _due(self, each: Watched) -> str | None:
        settings, pipeline = settings_of(each.surroundings), kept(each.declared)
        now, facts = self._clock(), self.facts(settings, pipeline)
        seen = triggers.first(pipeline.on, facts, now) if each.seen is None else Seen.of(each.seen)
        due, after = triggers.due(pipeline.on, facts, seen, now)
        if due is None:
            if after.plain != each.seen:
                places.watches_of(settings).see(each.pipeline, each.seen, after.plain)
            return None
        log.info("run_due", extra={"pipeline": each.pipeline, "why": due.why})
        moved = (each.seen, after.plain)
        by = f"watch, set by {each.by}"
        return starting.begin(
            settings, pipeline, due.why, by, each.surroundings, request=due.request, seen=moved
        )  # fmt: skip

    def facts(self, settings: Settings, pipeline: Pipeline) -> Facts:
        """What there is now, as far as its triggers ask for it."""
        on, runs = pipeline.on, places.runs_of(settings)
        memory = self._memory.setdefault(pipeline.name, Memory())
        data = _data(pipeline, memory) if on.data else None
        statistics, answers = self._statistics(settings, pipeline, memory) if on.drift else ({}, 0)
        requests = _requests(settings, pipeline) if on.merge_request else {}
        done = runs.done() if on.after else {}
        return Facts(data, requests, statistics, answers, done, runs.busy(pipeline.name))

    def _statistics(self, settings: Settings, pipeline: Pipeline, memory: Memory) -> tuple[dict[str, float], int]:
        assert pipeline.on.drift is not None
        now, over = self._clock(), seconds(pipeline.on.drift.over)
        served = checks.served(settings, pipeline)
        if served != memory.served:  # counts of one model say nothing of another's
            memory.served, memory.counts = served, []
        memory.counts.append((now, drift.read(self._ask(settings), served)))
        while len(memory.counts) > 1 and memory.counts[1][0] <= now - over:
            memory.counts.pop(0)
        return drift.between(memory.counts[0][1], memory.counts[-1][1])

    def _revive(self, settings: Settings) -> list[str]:
        runs, found = places.runs_of(settings), []
        for run in runs.all(1000, UNDER_WAY):
            about = {"run": run.id, "pipeline": run.pipeline}
            try:
                if self._taken_up(settings, runs, run):
                    found.append(run.id)
            except StrataError as wrong:  # the next look may be better
                log.warning("run_not_taken_up", extra={**about, "reason": str(wrong)})
            except Exception:  # whatever it is, the runs after this one are taken up
                log.exception("run_not_taken_up", extra=about)
        return found

    def _taken_up(self, settings: Settings, runs: Runs, run: Run) -> bool:
        at_it = driven(places.folder_of(settings, run.id))
        ready = run.state is State.WAITING and not starting.undecided(settings, run)[1]
        what = revived(run, at_it, ready, self._tried.get(run.id, run.created), self._clock())
        if what is Event.BROKE:
            reason = f"its driver died {ATTEMPTS} times in one step; see its Ray job {run.job}"
            runs.move(run.id, Event.BROKE, reason)
        elif what is Event.DRIVEN:
            self._tried[run.id] = self._clock()
            starting.drive(settings_of(runs.surroundings(run.id)), runs, run.id)
        return what is Event.DRIVEN


class Watching(Watch):
    """The watch as an actor, which looks for as long as it lives."""

    def __init__(self, surroundings: Mapping[str, Any]) -> None:
        super().__init__(surroundings)
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # a full disk, say: the next look may be better
                log.exception("no look")
            time.sleep(LOOK_SECONDS)


def revived(run: Run, driven: bool, decided: bool, tried: float, now: float) -> Event | None:
    """What happens to a run that is not over: DRIVEN, BROKE, or nothing. `tried`: when it was last given a driver."""
    if driven or now - tried < QUIET_SECONDS:
        return None
    if run.state is State.WAITING:
        return Event.DRIVEN if decided else None
    step = upcoming(run.steps)
    return Event.BROKE if step is not None and step.attempts >= ATTEMPTS else Event.DRIVEN


def settings_of(surroundings: Mapping[str, Any]) -> Settings:
    """As they are now. Raises SettingsInvalid."""
    file = surroundings["file"]
    return load(Path(file) if file else None, surroundings["variables"]).settings


def _data(pipeline: Pipeline, memory: Memory) -> str | None:
    assert pipeline.train is not None
    path = Path(pipeline.train.data)
    stamps = examples.stamps(path, "train.data")
    if stamps != memory.stamps:
        memory.data, memory.stamps = examples.digest(path, "train.data"), stamps
    return memory.data


def _requests(settings: Settings, pipeline: Pipeline) -> dict[int, str]:
    """Those that are open and not of a run, each with the commit that its source is at."""
    heads = registry_of(settings).history(pipeline.model).refs(HEADS)
    found = {
        number: each.source
        for number, each in starting.desk_of(settings).all(pipeline.model)
        if each.state is RequestState.OPEN and each.source in heads
    }
    runs = places.runs_of(settings).known(pipeline.model, map(run_of, found.values()))
    return {number: heads[source] for number, source in found.items() if run_of(source) not in runs}


def _metrics(settings: Settings) -> str:
    """What the gateway has counted. Raises Unavailable and what else it answers."""
    import httpx  # noqa: PLC0415 - only where drift is watched

    from pipelines.cli import keys  # noqa: PLC0415 - as above
    from pipelines.driver import connect, unreachable  # noqa: PLC0415
    from pipelines.refusals import refusal  # noqa: PLC0415

    with connect(settings.cluster.url, keys.operator(settings.cluster), timeout=10.0) as gateway:
        try:
            response = gateway.http.get("/metrics")
        except httpx.TransportError as wrong:
            raise unreachable(gateway.http.base_url, wrong) from None
        if response.is_error:
            raise refusal(response)
        return str(response.text)
