"""Knows which gangs wait for a place and why; writes into the log when they begin to, and when they wait no more.

Knows how to look. A gang whose place is found within one look is not worth a word. Has placement groups removed that
nobody owns: one is left where a control store or a controller ends at the wrong moment, and keeps its place. Has kept
what new gangs are made from, which goes where a control store has ended.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import structlog

log = structlog.get_logger(__name__)

LOOK_SECONDS = 10.0
LOST_LOOKS = 3  # in a row; a controller that starts again knows its gangs within a second or two


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


class Lost:
    """Groups without an owner, and in how many looks they were seen so."""

    def __init__(self) -> None:
        self._looks: Counter[str] = Counter()

    def of(self, leaked: Collection[str]) -> list[str]:
        """Those that were there without one for long enough."""
        self._looks = Counter({name: self._looks[name] + 1 for name in leaked})
        return sorted(name for name, looks in self._looks.items() if looks >= LOST_LOOKS)


class Lookout:
    """One for a gateway: it lives as long as somebody wants answers."""

    def __init__(
        self,
        look: Callable[[], Sequence[str]],
        seconds: float = LOOK_SECONDS,
        leaked: Callable[[], Collection[str]] = list,
        sweep: Callable[[Collection[str]], Sequence[str]] = sorted,
        hold: Callable[[], object] = lambda: None,
    ) -> None:
        """`look` says of each model whose gangs wait why they do; it may take a while.

        `leaked` names the groups that nobody owns, and `sweep` removes those of these names that nobody owns still.
        `hold` keeps what gangs are made from.
        """
        self._look, self._seconds, self._leaked, self._sweep = look, seconds, leaked, sweep
        self._hold = hold
        self._lasting, self._lost = Lasting(), Lost()
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

    def tidy(self) -> None:
        """Have removed what was lost long enough ago."""
        lost = self._lost.of(self._leaked())
        for name in self._sweep(lost) if lost else ():
            log.warning("group_removed", group=name, why="no gang owned it")

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._hold)
                await asyncio.sleep(self._seconds)
                said = await asyncio.to_thread(self._look)
                await asyncio.to_thread(self.tidy)
            except Exception as error:  # noqa: BLE001 - the control store is away, in any of its ways: look again
                log.debug("lookout_blind", error=repr(error))
                await asyncio.sleep(self._seconds)
                continue
            self.tell(said)
