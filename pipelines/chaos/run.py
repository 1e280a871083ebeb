"""One run: ask while nothing is wrong, then strike while everybody asks, then count what is left.

Owns the order of it. What comes next, `faults` says; what came of it, `story` tells; hands and eyes are `stage`'s.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from pipelines.chaos import asks
from pipelines.chaos.faults import Kind, Sight, Target, aim, order
from pipelines.chaos.load import Load, client, undisturbed
from pipelines.chaos.story import Story, Struck, lost

LOOK_SECONDS = 0.1
LEFT_SECONDS = 60.0  # for what was lost to be gone to the last process
PATIENCE_SECONDS = 180.0  # until a fault may strike: a stack that is not whole again by then will not be


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much of what. `budget`: bad answers, beyond which it ends; `spare` gangs of a model that always go on."""

    kinds: tuple[Kind, ...]
    faults: int = 60
    minutes: float = 10.0
    streams: int = 16
    rate: float = 10.0
    seed: int = 1
    budget: int = 0
    spare: int = 1
    stream_tokens: int = 500
    plain_tokens: int = 8
    patience_seconds: float = PATIENCE_SECONDS
    left_seconds: float = LEFT_SECONDS


class Stage(Protocol):
    """See `stage.Stage`."""

    def sight(self) -> Sight: ...

    def strike(self, target: Target, how: signal.Signals) -> None: ...

    def still(self) -> list[str]: ...

    def counts(self) -> Counter[str]: ...


@dataclass(slots=True)
class Run:
    """One run against the model `model` of the gateway at `url`."""

    stage: Stage
    url: str
    key: str
    model: str
    wanted: Wanted
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    transport: httpx.AsyncBaseTransport | None = None
    story: Story = field(default_factory=Story)
    _begun: float = 0.0
    _gangs: int = 0

    def go(self) -> Story:
        """Until all faults have struck, or the budget is gone. Raises Unavailable where the stack does not answer."""
        asyncio.run(self._go())
        return self.story

    async def _go(self) -> None:
        wanted = self.wanted
        live, plain = asks.live(self.model, wanted.stream_tokens), asks.plain(self.model, wanted.plain_tokens)
        before = await asyncio.to_thread(self.stage.counts)
        self._gangs = len(self.stage.sight().gangs)
        async with client(self.url, self.key, self.transport) as http:
            self.tell("asking while nothing is wrong")
            expected = await undisturbed(http, [*live, *plain])
            if refused := [ask.name for ask in (*live, *plain) if ask.name not in expected]:
                self.tell(f"the model does not take, and is not asked: {', '.join(refused)}")
            live, plain = ([ask for ask in asks if ask.name in expected] for asks in (live, plain))
            self._begun = self.clock()
            load = Load(http, expected, self.story, self._now)
            asking = asyncio.create_task(load.run(live, wanted.streams, plain, wanted.rate))
            try:
                await self._strike_all(load)
            finally:
                load.stop()
                self.story.seconds = self._now()
                await asking
        self.story.leaks = await self._left(before)

    def _now(self) -> float:
        return self.clock() - self._begun

    async def _strike_all(self, load: Load) -> None:
        wanted = self.wanted
        every = 60 * wanted.minutes / max(1, wanted.faults)
        await self._until(lambda: load.open >= wanted.streams, "not all streams began")
        for number, kind in enumerate(order(wanted.kinds, wanted.faults, wanted.seed)):
            target = await self._target(kind, number * every, number)
            if target is None:
                return
            at = self._now()
            await asyncio.to_thread(self.stage.strike, target, kind.signal)
            self.story.faults.append(Struck(kind.name, at, target.pid, target.gangs))
            self.tell(f"{at:7.1f} s  {kind.name} {target.pid or target.node[:8]}, {number + 1} of {wanted.faults}")
        await self._until(lambda: len(self.stage.sight().gangs) >= self._gangs, "a gang was not made again")

    async def _target(self, kind: Kind, due: float, roll: int) -> Target | None:
        """Whom the fault befalls, once it is due and may befall somebody; None where the run is over."""
        found: list[Target] = []

        def fits() -> bool:
            target = aim(kind, self.stage.sight(), self.wanted.spare, roll) if self._now() >= due else None
            found.extend([target] if target is not None else [])
            return bool(found)

        await self._until(fits, f"nothing was left that {kind.name} may befall", due)
        return found[0] if found else None

    async def _until(self, true: Callable[[], bool], trouble: str, due: float = 0.0) -> None:
        """Look until it is true. Ends the run where that takes too long, or where the budget is gone."""
        begun = max(self._now(), due)
        while not self._over(trouble, begun) and not await asyncio.to_thread(true):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_SECONDS)

    def _over(self, trouble: str, begun: float) -> bool:
        wanted, story = self.wanted, self.story
        if not story.stopped and len(story.bad) > wanted.budget:
            story.stopped = f"the error budget is gone: {len(story.bad)} bad answers, {wanted.budget} allowed"
        if not story.stopped and self._now() - begun > wanted.patience_seconds:
            story.stopped = f"{trouble} for {wanted.patience_seconds:g} s"
        return bool(story.stopped)

    async def _left(self, before: Counter[str]) -> list[str]:
        """What there is more or less of than before, once there has been time to end; nothing, as soon as it may be."""
        until = self.clock() + self.wanted.left_seconds
        while True:
            found = lost(before, await asyncio.to_thread(self.stage.counts))
            found += await asyncio.to_thread(self.stage.still)
            if not found or self.clock() > until:
                return found
            await asyncio.sleep(LOOK_SECONDS)
