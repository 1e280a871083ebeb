"""The driver of one run: `python -m pipelines.lifecycle.drive RUN`, what its Ray job executes.

Takes the steps in order, each in the state in which it finds it. It may end at any moment: who comes next goes on.
"""

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cluster import runtime
from cluster.errors import Conflict, StrataError, shorten
from pipelines import workers
from pipelines.lifecycle import places
from pipelines.lifecycle.declared import kept
from pipelines.lifecycle.jobs import OnRay
from pipelines.lifecycle.run import Event, State, upcoming
from pipelines.lifecycle.runs import Runs
from pipelines.lifecycle.steps import canary, evaluate, live, merge_request, push, train
from pipelines.lifecycle.work import Hands, Outcome, Work
from pipelines.settings import Settings, load
from pipelines.versions import registry_of

WORK: Mapping[str, Callable[[Work], Outcome]] = {
    "train": train.work, "evaluate": evaluate.work, "push": push.work, "merge_request": merge_request.work,
    "canary": canary.work, "live": live.work,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Drive the run that the command line names; 1 where it ended otherwise than well."""
    flags = argparse.ArgumentParser(prog="python -m pipelines.lifecycle.drive", description=__doc__)
    flags.add_argument("run")
    flags.add_argument("-f", "--file", type=Path)
    given = flags.parse_args(arguments)
    try:
        settings = load(given.file, os.environ).settings
        runs = places.runs_of(settings)
        runtime.join(settings.cluster, workers.python())
        state = drive(runs, given.run, settings, OnRay(settings))
    except StrataError as wrong:
        sys.exit(str(wrong))
    finally:
        runtime.disconnect()
    sys.exit(0 if state in (State.DONE, State.WAITING) else 1)


def drive(runs: Runs, name: str, settings: Settings, hands: Hands) -> State:
    """Take the steps that are left; the state in which the run is then. Raises Conflict where another drives it."""
    folder = places.folder_of(settings, name)
    with alone(folder, name):
        runs.move(name, Event.DRIVEN)
        try:
            return _steps(runs, name, settings, hands, folder)
        except Exception as wrong:
            now = runs.find(name)
            if now.state is not State.RUNNING:  # it was cancelled: what it meets then is no failure
                return now.state
            known = isinstance(wrong, StrataError)
            said = str(wrong) if known else f"{type(wrong).__name__}: {shorten(str(wrong), 300)}"
            step = upcoming(now.steps)
            state = runs.move(name, Event.BROKE, f"{step.name if step else 'the end'}: {said}")
            if not known:
                raise
            return state


def _steps(runs: Runs, name: str, settings: Settings, hands: Hands, folder: Path) -> State:
    pipeline = kept(runs.find(name).declared)
    registry = registry_of(settings)
    while (step := upcoming(runs.find(name).steps)) is not None:
        runs.enter(name, step.name)
        tell, keep = partial(_tell, runs, name, step.name), partial(runs.keep, name, step.name)
        at = Work(runs.find(name), pipeline, settings, registry, folder, hands, tell, keep)
        began = time.monotonic()
        found = WORK[step.name](at)
        sys.stdout.write(f"{step.name}: {found.note or found.reason} ({time.monotonic() - began:.1f} s)\n")
        sys.stdout.flush()
        if found.event is Event.WAITS:
            runs.keep(name, step.name, found.made)
            return runs.move(name, Event.WAITS, found.reason)
        runs.leave(name, step.name, found.numbers, found.made, found.note, found.event, found.reason)
        if found.event is not None:
            return runs.find(name).state
    return runs.move(name, Event.FINISHED)


def _tell(runs: Runs, name: str, step: str, share: float, note: str) -> None:
    if not runs.tell(name, step, share, note):
        raise Conflict(f"run {name}", State.RUNNING.value, runs.find(name).state.value)


@contextmanager
def alone(folder: Path, run: str) -> Iterator[None]:
    """One driver of a run at a time; the kernel lets go when it dies. Raises Conflict."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "driver.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"run {run}", "driven by nobody", "being driven") from None
        yield
    finally:
        os.close(lock)


def driven(folder: Path) -> bool:
    """Whether a driver is at it."""
    try:
        with alone(folder, ""):
            return False
    except Conflict:
        return True


if __name__ == "__main__":
    main()
