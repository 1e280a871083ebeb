"""The folder in shared memory where the processes of one gang find each other while it starts.

Holds the gang's channel and its rendezvous, for its owner's eyes alone, and is gone as soon as every rank has found the
others. The owner holds a lock on it, which the kernel drops when that process dies: a folder that nobody holds is a
dead gang's, in whatever container it lived. Knows nothing of what the files in it are for.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 — not a temporary folder but the memory file system itself
MARK = "shm-"  # a file `shm-NAME` in a meeting's folder: files beside the folder have NAME in theirs and end with it


class Meeting:
    """One gang's folder, from `create` to `close`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def create(cls) -> "Meeting":
        """A new one under a name that nobody else has. What dead owners left goes first."""
        sweep()
        while True:
            path = Path(tempfile.mkdtemp(prefix=_prefix(), dir=_root()))
            with suppress(FileNotFoundError):  # somebody swept it before it was locked
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if path.exists():
                    return cls(path, lock)
                os.close(lock)

    @property
    def rendezvous(self) -> str:
        """Where a process group meets, as torch writes it; readable by nobody else."""
        file = self.path / "meet"
        with suppress(FileExistsError):  # torch would make it for all to read
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        return f"file://{file}"

    def close(self) -> None:
        """Take it out of the file system; harmless when called twice."""
        if self._lock >= 0:
            _remove(self.path)
            os.close(self._lock)
            self._lock = -1


def sweep() -> None:
    """Remove the folders of this user's dead gangs, and no others."""
    for path in _root().glob(f"{_prefix()}*"):
        with suppress(OSError):  # another swept it first, or it is no folder of ours
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(folder).st_uid == os.getuid():
                    _remove(path)
            finally:
                os.close(folder)


def _remove(path: Path) -> None:
    for mark in path.glob(f"{MARK}*"):
        for file in path.parent.glob(f"*_{mark.name.removeprefix(MARK)}*"):
            file.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _root() -> Path:
    return SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"strata-gang-{os.getuid()}-"
