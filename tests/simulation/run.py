"""One seed, one life of a gateway: streams come, faults befall the replicas, every promise to a stream is checked."""

import asyncio
import random
from dataclasses import dataclass

from actors.journal import DEADLY, Journal
from actors.messages import SamplingParams
from actors.replicas import Hold, Replicas
from cluster.errors import DeadlineExceeded, GivenUp, Overloaded, StrataError, Unavailable
from tests.simulation.virtual import VirtualLoop
from tests.simulation.world import MODEL, World, token

STREAMS = 12
PATIENCE = 120.0  # seconds that a request gives, unless it is in a hurry


@dataclass(slots=True)
class Wish:
    """What one client will do. `leaves` and `hurry`: seconds after which it goes away, or that it gives."""

    seed: int
    prompt: tuple[int, ...]
    wanted: int
    comes: float
    leaves: float | None
    hurry: float | None
    poisonous: bool


class Broken(Exception):
    """A promise was not kept. The text tells which, and the seed that shows it again."""


@dataclass(slots=True)
class Outcome:
    """What one run saw, so that nobody takes an empty world for a kept promise."""

    whole: int = 0
    refused: int = 0
    given_up: int = 0
    innocent: int = 0  # of those: gangs died of something else, twice in the one step in which it alone began
    late: int = 0
    left: int = 0
    deaths: int = 0

    def add(self, other: "Outcome") -> None:
        """Both together."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def run(seed: int) -> Outcome:
    """Raises Broken or `virtual.Stuck` where something is not as promised; always the same for a seed."""
    loop = VirtualLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(_live(seed))
    except Broken as broken:
        raise Broken(f"seed {seed}: {broken}") from None


async def _live(seed: int) -> Outcome:
    dice = random.Random(seed)
    clock = asyncio.get_running_loop().time
    hold = dice.choice((None, Hold(20.0, 100), Hold(20.0, 100)))
    replicas = Replicas(MODEL, 1_000, clock, lambda: dice.getrandbits(32), hold)
    world = World(dice, replicas, refusals=dice.choice((0.0, 0.0, 0.1)))
    wishes = [_wish(dice, number) for number in range(STREAMS)]
    world.poisonous = {wish.seed for wish in wishes if wish.poisonous}
    world.start(dice.randint(1, 4))
    trouble = asyncio.ensure_future(world.trouble(dice.choice((0.3, 1.0, 5.0))))
    outcome = Outcome()
    await asyncio.gather(*(_client(world, wish, outcome) for wish in wishes))
    trouble.cancel()
    outcome.deaths = world.deaths
    _nothing_left(world)
    world.end()
    return outcome


def _wish(dice: random.Random, number: int) -> Wish:
    return Wish(
        seed=number,
        prompt=tuple(dice.choices(range(10), k=dice.choice((3, 70, 200)))),
        wanted=dice.randint(1, 60),
        comes=dice.uniform(0.0, 3.0),
        leaves=dice.uniform(0.0, 4.0) if dice.random() < 0.15 else None,
        hurry=dice.uniform(0.1, 3.0) if dice.random() < 0.15 else None,
        poisonous=dice.random() < 0.02,
    )


async def _client(world: World, wish: Wish, outcome: Outcome) -> None:
    await asyncio.sleep(wish.comes)
    heard: list[int] = []
    try:
        async with asyncio.timeout(wish.leaves):
            finish = await _turn(world, wish, heard)
    except TimeoutError:
        outcome.left += 1
    except (Unavailable, Overloaded):
        if heard:
            raise Broken(f"stream {wish.seed} was cut after {len(heard)} tokens") from None
        outcome.refused += 1
    except GivenUp:
        if world.alone[wish.seed] < DEADLY:
            raise Broken(f"stream {wish.seed} was given up without evidence") from None
        outcome.given_up += 1
        outcome.innocent += not wish.poisonous
    except DeadlineExceeded:
        if wish.hurry is None:
            raise Broken(f"stream {wish.seed} was late with {PATIENCE:g} s to go") from None
        outcome.late += 1
    except StrataError as wrong:
        raise Broken(f"stream {wish.seed}: {wrong!r}") from None
    else:
        if finish != "length" or len(heard) != wish.wanted:
            raise Broken(f"stream {wish.seed} ended by {finish} after {len(heard)} of {wish.wanted} tokens")
        outcome.whole += 1
    if heard != [token(wish.seed, position) for position in range(len(heard))]:
        raise Broken(f"stream {wish.seed} heard wrong tokens: {heard}")


async def _turn(world: World, wish: Wish, heard: list[int]) -> str | None:
    params = SamplingParams(temperature=0.0, max_tokens=wish.wanted, ignore_eos=True)
    deadline = PATIENCE if wish.hurry is None else wish.hurry
    stream = await world.replicas.submit(wish.prompt, params, seed=wish.seed, deadline=deadline)
    assert isinstance(stream, Journal)
    finish = None
    try:
        async for delta in stream:
            heard += delta.tokens
            finish = delta.finish
    finally:
        stream.cancel()
    return finish


def _nothing_left(world: World) -> None:
    """Whoever is gone holds nothing any more, in the leaders' books and the router's."""
    for leader in world.leaders:
        if leader.turns:
            raise Broken(f"{leader.name} still computes {len(leader.turns)} streams that nobody reads")
    waiting = {name: count for name, count in world.replicas.waiting().items() if count}
    if waiting:
        raise Broken(f"the router thinks that prompts wait: {waiting}")
