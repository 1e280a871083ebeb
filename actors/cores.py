"""Which cores of this machine a shard computes on.

A core is claimed by a lock on a file that the kernel drops when the process dies: no bookkeeping to leak, and shards of
different replicas on one machine never share a core while there are enough.
"""

import fcntl
import os
from pathlib import Path

_FOLDER = Path("/dev/shm/strata-cores")  # noqa: S108 — locks only, no contents


class Cores:
    """The cores that this process claimed; held until it ends or `release` is called."""

    def __init__(self, wanted: int) -> None:
        self._locks: list[int] = []
        self.claimed: tuple[int, ...] = ()
        if hasattr(os, "sched_getaffinity") and Path("/dev/shm").is_dir():  # noqa: S108
            self.claimed = self._claim(wanted)

    def pin(self) -> None:
        """Keep the calling thread, and those that it makes from now on, on the claimed cores."""
        if self.claimed:
            os.sched_setaffinity(0, self.claimed)

    def release(self) -> None:
        """Let others have them."""
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks, self.claimed = [], ()

    def _claim(self, wanted: int) -> tuple[int, ...]:
        folder = _FOLDER.with_name(f"{_FOLDER.name}-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        claimed: list[int] = []
        for core in sorted(os.sched_getaffinity(0)):
            if len(claimed) == wanted:
                break
            descriptor = os.open(folder / str(core), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                self._locks.append(descriptor)
                claimed.append(core)
        if len(claimed) == wanted:
            return tuple(claimed)
        self.release()  # too few left: float over all of them rather than crowd on some
        return ()
