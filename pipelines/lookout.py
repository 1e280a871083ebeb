"""Knows which gangs wait for a place and why; writes into the log when they begin to, and when they wait no more.

Knows how to look. A gang whose place is found within one look is not worth a word.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger(__name__)

LOOK_SECONDS = 10.0


class Lasting:
    """Of what looks see, what the look before saw too: a place that is found at once is no news."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def of(self, said: Sequence[str]) -> dict[str, str]:
        """By model, the lines of those that wait longer."""
        now = {line.partition(":")[0]: line for line in said}
        kept = {model: line for model, line in now.items() if model in self._seen}
        self._seen = set(now)
        return kept


class Lookout:
    """One for a gateway: it lives as long as somebody wants answers."""

    def __init__(self, look: Callable[[], Sequence[str]], seconds: float = LOOK_SECONDS) -> None:
        """`look` says of each model whose gangs wait why they do; it may take a while."""
        self._look, self._seconds = look, seconds
        self._lasting = Lasting()
        self._told: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on, on the running loop."""
        self._task = asyncio.ensure_future(self._run())

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    def waiting(self) -> dict[str, str]:
        """Models whose gangs wait, each with the reason as of the last look."""
        return self._told

    def tell(self, said: Sequence[str]) -> None:
        """What one look saw: told once for as long as a model's gangs wait."""
        lasting = self._lasting.of(said)
        for model in sorted(self._told.keys() - lasting.keys()):
            log.info("gangs_placed", model=model)
        for model in sorted(lasting.keys() - self._told.keys()):
            log.warning("gangs_wait", model=model, why=lasting[model])
        self._told = lasting

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                said = await asyncio.to_thread(self._look)
            except Exception as error:  # noqa: BLE001 - the control store is away, in any of its ways: look again
                log.debug("lookout_blind", error=repr(error))
                continue
            self.tell(said)
