"""A revision of some state that grows with every change, and those who wait for a newer one than they know.

Its owner says when the state has changed. All calls from one event loop.
"""

import asyncio


class News:
    """The revision, and an event for whoever waits for the next."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self._changed = asyncio.Event()

    def bump(self) -> None:
        """The state has changed."""
        self.revision += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def beyond(self, revision: int, seconds: float) -> None:
        """Returns once the revision is not `revision`, or after `seconds`."""
        if revision != self.revision:
            return
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            pass
