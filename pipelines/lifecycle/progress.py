"""Show how a run gets on: a bar on a terminal, a line now and then elsewhere.

Reads the lines that the training loop appends to a file, so that it works the same for a worker on another machine.
"""

import json
import sys
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOOK_SECONDS = 0.5
LINE_STEPS = 25


def follow(path: Path, steps: int, done: Event, seen: int = 0) -> None:
    """Show `path`'s progress until `done`, but what stands before byte `seen` is an earlier run's."""
    if sys.stderr.isatty():
        bar(path, steps, done, seen)
    else:
        lines(path, steps, done, seen)


def bar(path: Path, steps: int, done: Event, seen: int = 0) -> None:
    """A bar with loss and speed."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]} tokens/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=steps, loss=float("nan"), speed=0)
        while True:
            over = done.wait(LOOK_SECONDS)
            fresh, seen = read(path, seen)
            if fresh:
                last = fresh[-1]
                progress.update(task, completed=last["step"] + 1, loss=last["loss"], speed=last["tokens_per_second"])
            if over:
                return


def lines(path: Path, steps: int, done: Event, seen: int = 0) -> None:
    """A plain line every few steps."""
    while True:
        over = done.wait(LOOK_SECONDS)
        fresh, seen = read(path, seen)
        for line in fresh:
            if line["step"] % LINE_STEPS == 0 or line["step"] + 1 == steps:
                print(
                    f"step {line['step'] + 1}/{steps}  loss {line['loss']:.4f}  {line['tokens_per_second']} tokens/s",
                    file=sys.stderr,
                    flush=True,
                )
        if over:
            return


def read(path: Path, seen: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after byte `seen`, and where they end."""
    if not path.exists():
        return [], seen
    with path.open("rb") as file:
        file.seek(seen)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], seen + len(whole)
