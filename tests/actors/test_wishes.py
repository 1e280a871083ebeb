"""A gateway tells what it has of each model, of what is held at once, and learns what a sleeping model holds."""

import asyncio
from collections.abc import Mapping

import pytest

from actors.demand import Wish
from actors.directory import Directory
from actors.replicas import Hold, Replicas
from actors.roster import Roster
from actors.wishes import Wishes
from cluster.errors import NotReady, Unavailable
from tests.actors.engine.remembering import continuation
from tests.actors.test_link import MODEL, lead
from tests.contracts.client import PROMPT, collect, greedy, tokens


class Told:
    """Hears wishes; says what the model holds."""

    def __init__(self, context_tokens: int) -> None:
        self.context_tokens = context_tokens
        self.wishes: list[Wish] = []
        self.heard = asyncio.Event()
        self.failing = False

    async def __call__(self, gateway: str, wishes: Mapping[str, Wish]) -> Mapping[str, int]:
        assert gateway
        self.wishes.append(wishes[MODEL])
        self.heard.set()
        if self.failing:
            raise ConnectionError
        return dict.fromkeys(wishes, self.context_tokens)

    async def until(self, held: int) -> None:
        async with asyncio.timeout(20):
            while not self.wishes or self.wishes[-1].held != held:
                self.heard.clear()
                await self.heard.wait()


async def test_a_request_that_finds_no_gang_is_told_at_once_and_waits_for_it() -> None:
    replicas, told, directory = Replicas(MODEL, hold=Hold(60.0, 2), sleeps=True), Told(64), Directory()
    assert not replicas.ready
    with pytest.raises(NotReady):
        _ = replicas.context_tokens
    wishes = Wishes({MODEL: replicas}, told, seconds=3600.0)
    wishes.start()
    await told.until(held=0)
    async with asyncio.timeout(20):
        while not replicas.ready:  # it sleeps, and a request would wake it
            await asyncio.sleep(0)
    assert replicas.context_tokens == 64
    asked = asyncio.create_task(replicas.submit(PROMPT, greedy(), seed=1))
    await told.until(held=1)
    assert told.wishes[-1] == Wish(1, 0, 1, 64)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    leader = await lead(directory, "one")
    stream = await asked
    assert tokens(await collect(stream)) == continuation(PROMPT, 8)
    assert (replicas.wish.held, replicas.wish.outstanding, replicas.wish.came) == (0, 0, 1)
    wishes.close()
    await roster.close()
    leader.close()


async def test_to_rouse_is_to_ask_for_a_replica_and_to_say_whether_there_is_one() -> None:
    replicas, told, directory = Replicas(MODEL, sleeps=True), Told(64), Directory()
    wishes = Wishes({MODEL: replicas}, told, seconds=0.001)
    wishes.start()
    await told.until(held=0)
    assert not replicas.rouse()
    assert not replicas.rouse()
    async with asyncio.timeout(20):
        while told.wishes[-1].came != 2:
            await asyncio.sleep(0)
    roster = Roster({MODEL: replicas}, directory.watch)
    roster.start()
    leader = await lead(directory, "one")
    async with asyncio.timeout(20):
        while not replicas.rouse():
            await asyncio.sleep(0)
    wishes.close()
    await roster.close()
    leader.close()


async def test_past_the_bound_it_is_refused_at_once() -> None:
    replicas = Replicas(MODEL, hold=Hold(60.0, 1), sleeps=True)
    replicas.remember(64)
    held = asyncio.create_task(replicas.submit(PROMPT, greedy(), seed=1))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="being started"):
        await replicas.submit(PROMPT, greedy(), seed=1)
    held.cancel()


async def test_whom_nobody_hears_tells_again() -> None:
    replicas, told = Replicas(MODEL), Told(64)
    told.failing = True
    wishes = Wishes({MODEL: replicas}, told, seconds=0.001)
    wishes.start()
    await told.until(held=0)
    told.failing = False
    async with asyncio.timeout(20):
        while replicas.wish.context_tokens != 64:
            await asyncio.sleep(0)
    assert not replicas.ready, "one that does not sleep is ready when it has a replica"
    wishes.close()
