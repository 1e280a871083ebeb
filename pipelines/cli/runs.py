"""`strata runs`: begin runs of pipelines, and show how far they are and what came of them.

Owns words and bars. What a run is stands in `pipelines.lifecycle`.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.errors import StrataError
from pipelines.cli import show
from pipelines.cli.config import settle
from pipelines.cli.entrance import who
from pipelines.lifecycle import places, starting
from pipelines.lifecycle.drive import driven
from pipelines.lifecycle.run import ACTIVE, CUT, OVER, UNDER_WAY, Run, State, Step, goes_on, progress, upcoming, waits
from pipelines.lifecycle.runs import Runs
from pipelines.settings import Settings

LOOK_SECONDS = 0.5
START_SECONDS = 60.0  # until the job of a driver has begun; what is stored before is of the last one
BAR = 12
SHOWN = (ACTIVE, OVER, *CUT)  # states of a step that somebody who follows is told of
PATIENCE_SECONDS = 5.0  # with the job of a driver, before it is asked whether it has ended
FOLLOWED = (State.QUEUED, State.RUNNING)
COLOURS = {State.DONE: "green", State.STOPPED: "red", State.FAILED: "red", State.TAKEN_BACK: "red"}


def listing(limit: int, file: Path | None, *, as_json: bool) -> None:
    """All runs."""
    settings = settle(file).settings
    who(settings.cluster, "list_runs")
    found = [current(settings, run) for run in places.runs_of(settings).all(limit)]
    if as_json:
        show.document([summary(run) for run in found])
    else:
        show.table(("run", "state", "progress", "at", "began", "why"), [row(run) for run in found])


def start(
    pipeline: str, why: str, request: int | None, file: Path | None, *, detach: bool, as_json: bool
) -> int:  # fmt: skip
    """Begin one, and follow it unless `detach`; 1 where it ends otherwise than well."""
    settings = settle(file).settings
    by = who(settings.cluster, "begin_run")
    declared = starting.declared(settings, pipeline)
    run = starting.begin(settings, declared, why, by, starting.surroundings(file), request=request)
    show.progress(f"{run} has begun; `strata runs show {run}` says how far it is")
    return _end(settings, run, detach, as_json)


def resume(run: str, file: Path | None, *, detach: bool, as_json: bool) -> int:
    """Take one up."""
    settings = settle(file).settings
    who(settings.cluster, "begin_run")
    runs = places.runs_of(settings)
    before = runs.find(run)
    starting.resume(settings, run)
    if not detach:
        taken_up(runs, before)
    return _end(settings, run, detach, as_json)


def taken_up(runs: Runs, before: Run) -> None:
    """Wait until a driver has begun with a run that was at rest `before`, for START_SECONDS at most."""
    until = time.monotonic() + START_SECONDS
    while before.state not in FOLLOWED and time.monotonic() < until:
        now = runs.find(before.id)
        if now.state is not before.state or tries(now) > tries(before):
            return
        time.sleep(LOOK_SECONDS)


def tries(run: Run) -> int:
    """How often drivers have begun with its steps."""
    return sum(step.attempts for step in run.steps)


def follow(run: str, file: Path | None, *, as_json: bool) -> int:
    """Watch one to its end."""
    settings = settle(file).settings
    who(settings.cluster, "list_runs")
    return _end(settings, run, False, as_json)


def cancel(run: str, file: Path | None, *, as_json: bool) -> None:
    """End one."""
    settings = settle(file).settings
    who(settings.cluster, "cancel_run")
    found = starting.cancel(settings, run)
    if as_json:
        show.document(summary(found))
    else:
        show.line(f"{run} is {found.state}")


def shown(run: str, file: Path | None, *, as_json: bool) -> None:
    """All of one."""
    settings = settle(file).settings
    who(settings.cluster, "list_runs")
    found = current(settings, places.runs_of(settings).find(run))
    if as_json:
        show.document(summary(found) | {"steps": [asdict(step) for step in found.steps], "declared": found.declared})
        return
    show.table(("run", "state", "progress", "at", "began", "why"), [row(found)])
    if found.reason:
        show.line(escape(found.reason))
    show.table(
        ("step", "", "seconds", "tries", "what"), [step_row(step, time.time(), found.state) for step in found.steps]
    )
    numbers = [(step.name, name, number(name, value)) for step in found.steps for name, value in step.numbers.items()]
    if numbers:
        show.table(("step", "number", "value"), numbers)
    made = [(step.name, name, plain(value)) for step in found.steps for name, value in step.made.items()]
    if made:
        show.table(("step", "made", "value"), made)


def current(settings: Settings, run: Run) -> Run:
    """A run with what holds it up by now as its reason; where nobody can tell, with what was said of it last."""
    with suppress(StrataError):
        if reason := standing(settings, run):
            return replace(run, reason=reason)
    return run


def standing(settings: Settings, run: Run) -> str:
    """Why nobody works on a run that is under way, as it is now; nothing where somebody does."""
    if run.state is State.WAITING:
        return waits(run.id, *starting.undecided(settings, run))
    if run.state is State.RUNNING and not driven(places.folder_of(settings, run.id)):
        return f"its driver is gone: {goes_on(run.id)}"
    if said := starting.fallen(settings, run):
        return f"its driver ended before the first step ({said}); {goes_on(run.id)}"
    return ""


def summary(run: Run) -> dict[str, Any]:
    """One as JSON has it, without its steps."""
    found = asdict(run)
    return {name: found[name] for name in found if name not in ("steps", "declared")} | {
        "progress": round(progress(run), 3), "version": run.made("version"),
    }  # fmt: skip


def row(run: Run) -> tuple[str, str, str, str, str, str]:
    """One in a table."""
    step = upcoming(run.steps)
    working = step is not None and run.state in FOLLOWED and not run.reason
    at = f"{step.name} {step.note}".strip() if step and working else run.reason or run.made("version") or ""
    return run.id, run.state, bar(progress(run)), at, show.when(int(run.created)), run.why


def step_row(step: Step, now: float, run: State = State.RUNNING) -> tuple[str, str, str, str, str]:
    """One step in a table, of a run in that state."""
    if step.state == ACTIVE and run is State.WAITING:
        step = replace(step, state=run.value)
    seconds = f"{(step.ended or now) - step.began:.1f}" if step.began is not None else ""
    share = f" {step.share:.0%}" if step.state == ACTIVE else ""
    return step.name, step.state + share, seconds, str(step.attempts or ""), step.note


def bar(share: float) -> str:
    """Blocks for what is done, and how much that is."""
    full = round(BAR * share)
    return "█" * full + "░" * (BAR - full) + f" {share:4.0%}"


def number(name: str, value: float) -> str:
    """A figure in a table."""
    return show.amount(int(value)) if name == "bytes" else f"{value:.6g}"


def plain(value: Any) -> str:
    """A value in a table; of lists, such as wrong answers, a few examples are kept."""
    if isinstance(value, list):
        return f"{len(value)} kept as examples; --json has them" if value else "none"
    return str(value)


def _end(settings: Settings, run: str, detach: bool, as_json: bool) -> int:
    found = places.runs_of(settings).find(run) if detach else _followed(settings, run)
    if as_json:
        show.document(summary(found))
    elif detach:
        show.line(f"{run} is {found.state}")
    else:
        colour = COLOURS.get(found.state, "yellow")
        version = found.made("version")
        what = found.reason or (f"{found.model}@{version}" if version else "")
        show.line(f"{run} is [{colour}]{found.state}[/]{': ' if what else ''}{escape(what)}")
    return 0 if found.state in (State.DONE, *UNDER_WAY) and not _lost(found) else 1


def _lost(run: Run) -> bool:
    """Whether it waits for a driver that will not come by itself."""
    return run.state is State.QUEUED and bool(run.reason)


def _followed(settings: Settings, run: str) -> Run:
    """Until it is over or waits for people: bars on a terminal, elsewhere a line when something has changed."""
    drawn = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"), console=show.err, disable=not show.err.is_terminal,
    )  # fmt: skip
    said: Mapping[str, str] = {}
    runs, asked = places.runs_of(settings), time.monotonic()
    with drawn:
        bars: dict[str, TaskID] = {}
        while True:
            found = runs.find(run)
            for step in found.steps:
                if step.name not in bars and step.state in SHOWN:
                    bars[step.name] = drawn.add_task(step.name, total=1.0, note="")
                if step.name in bars:
                    drawn.update(bars[step.name], completed=step.share, note=escape(step.note))
            now = {step.name: f"{step.state} {step.note}" for step in found.steps if step.state in SHOWN}
            if not show.err.is_terminal:
                for name, words in now.items():
                    if words != said.get(name):
                        show.progress(escape(f"{name}: {words}"))
            said = now
            if found.state not in FOLLOWED:
                return found
            if found.state is State.QUEUED and time.monotonic() - asked > PATIENCE_SECONDS:
                asked = time.monotonic()
                if reason := standing(settings, found):
                    return replace(found, reason=reason)
            time.sleep(LOOK_SECONDS)
