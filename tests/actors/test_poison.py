"""Gangs that die of a request and gangs that just die: the one is stopped, all others are answered in full.

Real engines and journals on a clock of steps; chance alone decides who dies when, and a seed repeats it.
"""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from actors.engine.plan import Plan, Result
from actors.gateway_link import Link, LinkStream
from actors.journal import URGENT, Asked, Journal
from actors.messages import Cancel, Submit
from actors.wire import pack_command, unpack_command
from cluster.errors import GivenUp, ReplicaLost
from tests.actors.engine.remembering import Checked, Paced, continuation, engine
from tests.contracts.client import greedy, tokens

POISON = 199
LOST = ReplicaLost("a gang", "a rank died")
LENGTH = 12


class Mortal(Checked):
    """Dies of the step that computes token number `at` of a request that begins with POISON, and when told to."""

    def __init__(self, other: Checked, at: int) -> None:
        super().__init__(other.runner)
        self._at, self._poisoned, self.poisoned, self.struck = at, set[int](), False, False

    def execute(self, plan: Plan) -> Result:
        self._poisoned -= set(plan.leaves)
        self._poisoned |= {join.slot for join in plan.joins if join.prompt[0] == POISON}
        for slot, start, count in zip(plan.slots, plan.starts, plan.counts, strict=True):
            if int(slot) in self._poisoned and start + count >= self._at:
                self.poisoned = True
        if self.poisoned or self.struck:
            raise LOST
        return super().execute(plan)


@dataclass
class Gang:
    engine: Paced
    executor: Mortal
    streams: dict[int, LinkStream] = field(default_factory=dict)


class Fleet:
    """Gangs that are made anew at once. `chance` of a death in each step, half of them of the leader as well."""

    def __init__(self, seed: int, gangs: int, chance: float, at: int) -> None:
        self._random, self._chance, self._at = random.Random(seed), chance, at
        self._gangs = [self._made() for _ in range(gangs)]
        self.poisoned = self.deaths = self.steps = 0

    def _made(self) -> Gang:
        made, executor = engine(running_sequences=16, step_tokens=64, batch_stretch=None)
        made.executor = mortal = Mortal(executor, self._at)
        return Gang(made, mortal)

    async def place(self, asked: Asked) -> LinkStream:
        """As `Replicas` does; whose journal resumes first is chance, as it is between gateways."""
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        gang = self._random.choice(self._gangs)
        submit = Submit(
            0, asked.prompt, asked.params, asked.seed, priority=URGENT if asked.lives else 0,
            emitted=tuple(asked.emitted), suspect=asked.suspect,
        )  # fmt: skip
        told = unpack_command(pack_command(submit)[4:])
        assert not isinstance(told, Cancel)
        key = gang.engine.add(told)
        gang.streams[key] = stream = LinkStream(Link("a gang"), key)
        return stream

    def step(self) -> None:
        """One step of every gang that has work."""
        self.steps += 1
        for index, gang in enumerate(self._gangs):
            if not gang.engine.busy:
                continue
            fate = self._random.random()
            gang.executor.struck = fate < self._chance / 2
            try:
                if self._chance / 2 <= fate < self._chance:
                    raise ConnectionError
                for key, delta in gang.engine.step():
                    gang.streams[key].feed(delta)
            except ReplicaLost as lost:
                for key, delta in gang.engine.drain(lost):
                    gang.streams[key].feed(delta)
            except ConnectionError:  # the leader died too: nobody says what it was about
                for stream in gang.streams.values():
                    stream.fail(LOST)
            else:
                continue
            self.deaths += 1
            self.poisoned += gang.executor.poisoned
            self._gangs[index] = self._made()


async def answered(fleet: Fleet, prompts: list[tuple[int, ...]], late: int) -> tuple[list[list[int] | GivenUp], int]:
    """What came of each, and the most steps that an innocent waited. The poison comes after `late` steps."""
    longest = 0

    async def answer(prompt: tuple[int, ...]) -> list[int] | GivenUp:
        nonlocal longest
        while prompt[0] == POISON and fleet.steps < late:
            await asyncio.sleep(0)
        asked = Asked(prompt, greedy(max_tokens=LENGTH), 0, 0, "", None, 600.0)
        got, last = list[int](), fleet.steps
        try:
            async for delta in Journal(asked, await fleet.place(asked), fleet.place, 1000):
                got += tokens([delta])
                if prompt[0] != POISON:
                    longest, last = max(longest, fleet.steps - last), fleet.steps
        except GivenUp as stopped:
            return stopped
        return got

    tasks = [asyncio.create_task(answer(prompt)) for prompt in prompts]
    while not all(task.done() for task in tasks):
        fleet.step()
        for _ in range(8):
            await asyncio.sleep(0)
    return [task.result() for task in tasks], longest


def sixteen(seed: int) -> list[tuple[int, ...]]:
    prompts = [(token, *range(token % 7 + 1)) for token in range(15)]
    prompts.insert(seed % 16, (POISON, 1, 2))
    return prompts


async def check(seed: int, chance: float, gangs: int, at: int, most: int, late: int = 0) -> int:
    fleet, prompts = Fleet(seed, gangs, chance, at), sixteen(seed)
    answers, longest = await answered(fleet, prompts, late)
    for prompt, answer in zip(prompts, answers, strict=True):
        if prompt[0] == POISON:
            assert isinstance(answer, GivenUp)
        else:
            assert answer == continuation(prompt, LENGTH)
    assert fleet.poisoned <= most
    return longest


@pytest.mark.parametrize("gangs", [1, 3])
@pytest.mark.parametrize("seed", range(8))
async def test_poison_among_running_ones_is_stopped_after_two(seed: int, gangs: int) -> None:
    assert await check(seed, 0.0, gangs, at=1, most=2, late=4 + seed % 6) <= 16


@pytest.mark.parametrize(("at", "gangs"), [(1, 1), (1, 3), (6, 1), (6, 3)])
@pytest.mark.parametrize("seed", range(4))
async def test_poison_that_began_or_got_on_with_many_costs_a_few_more(seed: int, at: int, gangs: int) -> None:
    """To die beside others is no evidence yet, and to die with many tokens to show is not even a suspicion."""
    assert await check(seed, 0.0, gangs, at, most=3 if at == 1 else 4) <= 2 * 16


@pytest.mark.parametrize("late", [0, 3])
@pytest.mark.parametrize("seed", range(12))
async def test_deaths_by_chance_make_nobody_guilty(seed: int, late: int) -> None:
    await check(seed, 0.02, 3, at=1, most=3, late=late)
