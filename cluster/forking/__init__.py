"""Ray's worker processes as forks of one process that has imported what they need.

A worker of a gang imports Ray, torch, DeepSpeed and Strata: 3 s of a core, for each of the three processes of a small
gang, on the very machine that carries the streams of a gang that has just died. Forked from a process that did so once,
it has all of that at once, and shares the memory of it.

`command()` is the `py_executable` of a runtime environment: what Ray runs instead of Python. The first worker that asks
starts the process; `ahead()` has it there before. A node that is started with `SETUP` as its `setup_worker_path` needs
no Ray to ask.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.forking.wire import JOB, RAYLET

SETUP = str(Path(__file__).with_name("setup.py"))

if TYPE_CHECKING:
    import subprocess  # every worker's process imports this package: what it does not need is left to who does


def command(words: Sequence[str]) -> str:
    """What starts a worker, a line for bash. `words` are the revision of the code and the modules it has imported."""
    revision, *modules = words
    return f"{interpreter()} -m cluster.forking.ask {shlex.quote(revision)} {','.join(modules)}"


def interpreter() -> str:
    """This interpreter; on a node where it is not, the one that bash finds. Words for bash."""
    mine = shlex.quote(sys.executable)
    return f"$([ -x {mine} ] && echo {mine} || echo python)"


def start(words: Sequence[str], **told: str) -> "subprocess.Popen[bytes]":
    """Start the process that forks, with `told` in its environment. Of several at once one takes the socket."""
    import subprocess  # noqa: PLC0415 - as above

    line = [sys.executable, "-m", "cluster.forking.server", *words]
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, env={**os.environ, **told})  # noqa: S603 — our words


def ahead(words: Sequence[str], raylet: int, job: str) -> "subprocess.Popen[bytes]":
    """Start it for a job of the raylet that has this process id, before anybody asks for it."""
    return start(words, **{RAYLET: str(raylet), JOB: job})
