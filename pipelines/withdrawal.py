"""Whether a deploy has taken a model off, so that nobody waits for its gangs in a gateway that is about to end.

Knows names of deployments. Who tells them is told to it.
"""

import asyncio
import time
from collections.abc import Callable, Collection

import structlog

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5  # at most so often is Serve asked, and only while somebody waits


class Withdrawal:
    """What `look` says is deployed; empty where it cannot tell. `besides` is there whenever it can."""

    def __init__(
        self, look: Callable[[], Collection[str]], besides: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look, self._besides, self._clock = look, besides, clock
        self._seen: Collection[str] = ()
        self._at, self._turn = float("-inf"), asyncio.Lock()

    async def of(self, deployment: str) -> bool:
        """Whether it is deployed no more."""
        async with self._turn:
            if self._clock() - self._at >= LOOK_SECONDS:
                self._at = self._clock()
                try:
                    self._seen = await asyncio.to_thread(self._look)
                except Exception as wrong:  # noqa: BLE001 - the control store or the controller is away, in any of its ways
                    log.debug("withdrawal_blind", error=repr(wrong))
                    self._seen = ()
        return self._besides in self._seen and deployment not in self._seen
