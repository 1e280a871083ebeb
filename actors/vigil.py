"""A rank ends its leader where that stands still: stopped by a signal, and nobody else would notice for half a minute.

Its gateways have given it up by then, and whatever it would say later comes over connections that they have cut. But
to Serve it is only slow, and the next gang comes when it has ended. And a rank without a leader ends itself: mostly Ray
is quicker, but where a node's raylet was lost nobody else is left to do it.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from actors.quiet import Vital, vital

LOOK_SECONDS = 0.5
STOPPED_LOOKS = 6  # in a row: 3 s, which is longer than gateways wait for a leader that is silent
ORPHANED_LOOKS = 20  # 10 s, in which Ray ends those whose group is removed
_STOPPED = "T"  # by a signal; not `t`, which a debugger does
_ENDED = "ZX"  # also one that nobody has buried yet


def kill(pid: int) -> None:
    """SIGKILL, which a stopped process dies of, too."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Vigil:
    """Beside the leader, on its machine. Counts looks and not seconds: a machine that slept has looked only once."""

    def __init__(
        self, leader: int, see: Callable[[int], Vital | None] = vital, end: Callable[[int], None] = kill
    ) -> None:
        self._leader, self._see, self._end = leader, see, end
        self._stopped = self._gone = 0

    def start(self) -> None:
        """Look from a thread of its own, for as long as this process lives."""
        threading.Thread(target=self._run, name="vigil", daemon=True).start()

    def look(self) -> bool:
        """One look; whether it was the last, as this process was told to end."""
        seen = self._see(self._leader)
        ended = seen is None or seen[0] in _ENDED
        self._stopped = self._stopped + 1 if seen is not None and seen[0] == _STOPPED else 0
        self._gone = self._gone + 1 if ended else 0
        if self._stopped == STOPPED_LOOKS:
            self._end(self._leader)
        if self._gone == ORPHANED_LOOKS:
            self._end(os.getpid())
        return self._gone >= ORPHANED_LOOKS

    def _run(self) -> None:
        while not self.look():
            time.sleep(LOOK_SECONDS)
