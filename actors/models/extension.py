"""Whose turn it is to compile one of torch's extensions: one process at a time, and no dead one's.

torch says "I am compiling" by a file `lock` in the extension's folder, which stays when its process is killed, and
for which every later one waits for ever. Here the turn is a lock that the kernel drops with the process that has it.
Knows files and processes. Knows nothing of what is compiled.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_SECONDS = 0.1  # as often as torch looks itself
_PROCESSES = Path("/proc")


@contextmanager
def turn(folder: Path, pause: Callable[[], None] = lambda: time.sleep(_LOOK_SECONDS)) -> Iterator[None]:
    """Compile inside in `folder`: nobody else of ours does, and no lock that a dead process left is in the way."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "turn").open("w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        while (folder / "lock").exists():
            if not _in_use(folder):
                (folder / "lock").unlink(missing_ok=True)
                break
            pause()
        yield


def _in_use(folder: Path) -> bool:
    """Whether some process compiles there, be it torch in a program that is not ours or what a dead one started.

    torch's FileBaton keeps its lock file open for as long as it has it, and runs ninja, which outlives it, inside the
    folder: of a process that compiles, one or the other shows. The age of a lock would tell neither. Not seen is
    who compiles in another container or on another machine with the same home: taking its lock away costs one of us
    a failed build, waiting for what may be dead would cost every gang.
    """
    lock = _identity(folder / "lock")
    if lock is None:
        return False
    here = {lock, _identity(folder)}
    return any(_identity(held) in here for process in _PROCESSES.glob("[0-9]*") for held in _held_by(process))


def _held_by(process: Path) -> list[Path]:
    """The process's working directory and its open files, as links; of other users' processes we see neither."""
    try:
        return [process / "cwd", *(process / "fd").iterdir()]
    except OSError:
        return []


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
