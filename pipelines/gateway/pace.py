"""How often a stream may be written to when many are: an event costs the machine far more than a token does.

An event crosses the gateway, HAProxy and two sockets, some 0.1 ms of processor time in all, which on a small machine
the engine's ranks go without. With few streams every step's tokens leave at once; with many, what several steps made
leaves together, as long as nobody could see it. Knows counts and a clock. Knows nothing of what is written.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WORTH_SECONDS = 0.002  # a shorter wait costs as much as it saves
_SMOOTH_SECONDS = 0.05  # a longer one is seen


class Pace:
    """Shared by the streams of one gateway: together they aim at no more than `events_per_second` events."""

    def __init__(self, events_per_second: float) -> None:
        self._each_seconds = 1.0 / events_per_second
        self._active = 0

    @property
    def seconds(self) -> float:
        """Between two events of one stream, as many as there are now."""
        wanted = self._active * self._each_seconds
        return min(wanted, _SMOOTH_SECONDS) if wanted >= _WORTH_SECONDS else 0.0

    @contextmanager
    def stream(self) -> Iterator["Gait"]:
        """Count one stream while it lasts."""
        self._active += 1
        try:
            yield Gait(self)
        finally:
            self._active -= 1


class Gait:
    """One stream's own beat."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._last = time.monotonic()

    async def rest(self) -> None:
        """After an event: wait until the next may follow."""
        wait = self._pace.seconds - (time.monotonic() - self._last)
        if wait > 0:
            await asyncio.sleep(wait)
        self._last = time.monotonic()
