"""A rank ends its leader where that stands still: stopped by a signal, and nobody else would notice for half a minute.

Its gateways have given it up by then, and whatever it would say later comes over connections that they have cut. But
to Serve it is only slow, and the next gang comes when it has ended.
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
_STOPPED = "T"  # by a signal; not `t`, which a debugger does


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
        self._stopped = 0

    def start(self) -> None:
        """Look from a thread of its own, for as long as this process lives or the leader does."""
        threading.Thread(target=self._run, name="vigil", daemon=True).start()

    def look(self) -> bool:
        """One look; whether it was the last, as there is no leader any more."""
        seen = self._see(self._leader)
        self._stopped = self._stopped + 1 if seen is not None and seen[0] == _STOPPED else 0
        if self._stopped >= STOPPED_LOOKS:
            self._end(self._leader)
        return seen is None or self._stopped >= STOPPED_LOOKS

    def _run(self) -> None:
        while not self.look():
            time.sleep(LOOK_SECONDS)
