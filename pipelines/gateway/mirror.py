"""Ask a version that no user sees the same as the one that answered, and compare what both said.

Bounded, least urgent, begun after the user's answer is out, and dropped where there is anything better to do: what is
mirrored may cost the mirrored version's time and nobody else's. Knows turns. Knows nothing of HTTP.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from cluster.errors import Overloaded, StrataError
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Answer, Served, Turn, answer
from pipelines.gateway.meter import TurnMeter
from pipelines.routing.guide import Way

AT_ONCE = 4  # of one gateway; what comes beyond is not mirrored
SECONDS = 60.0
SAID = 4_096  # characters of both answers that are compared
WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\w+")  # a word, or one letter of a writing that has no spaces
Prepare = Callable[[Served], Awaitable[Turn]]


@dataclass(slots=True)
class Mirror:
    """One gateway's. `note` hears of each comparison."""

    metrics: Metrics
    clock: Callable[[], float]
    note: Callable[[Way, float], None]
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def offer(self, way: Way, served: Served, prepare: Prepare, said: str) -> None:
        """Mirror a request that was answered with `said`, unless enough is mirrored already."""
        if len(self._tasks) >= AT_ONCE or not served.client.ready:
            self.metrics.shadow(served.name, "dropped")
            return
        task = asyncio.ensure_future(self._ask(way, served, prepare, said))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def rest(self) -> None:
        """Until nothing is mirrored."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _ask(self, way: Way, served: Served, prepare: Prepare, said: str) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                turn = await prepare(served)
                begun = await answer(served, turn, TurnMeter(self.metrics.model(served.name), self.clock))
                alike = agreement(said, await heard(begun))
        except Overloaded:
            self.metrics.shadow(served.name, "dropped")
        except (StrataError, TimeoutError):
            self.metrics.shadow(served.name, "failed")
            self.note(way, 0.0)
        else:
            self.metrics.shadow(served.name, "compared", alike)
            self.note(way, alike)


async def heard(begun: Answer) -> str:
    """All that the only choice of a turn says, as far as it is compared."""
    begun.keep(SAID)
    async with aclosing(begun.parts()) as batches:
        async for _ in batches:
            pass
    return begun.voices[0].head


def agreement(one: str, other: str) -> float:
    """How much of their words two answers share, from 0 to 1: F1 of single words, as ROUGE-1 counts (Lin, 2004)."""
    if one == other:
        return 1.0
    first, second = (Counter(WORD.findall(text.lower())) for text in (one, other))
    shared, all_words = (first & second).total(), first.total() + second.total()
    return 2 * shared / all_words if all_words else 0.0
