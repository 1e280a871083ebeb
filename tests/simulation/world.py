"""A model's replicas as a gateway sees them: streams of tokens, and everything that can go wrong with who makes them.

The gateway's side is the real one (`Replicas`, its journal and router, `LinkStream`); leaders are simulated. A token is
a function of its request and position, so that a wrong, missing or repeated one is seen.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

from actors.directory import Entry
from actors.gateway_link import Link, LinkStream
from actors.messages import Delta, Load, SamplingParams
from actors.replicas import Replicas
from cluster.errors import ReplicaLost, SuspectLost

MODEL = "simulated"
SILENCE = 2.5  # seconds, until a gateway hangs up on who says nothing


def token(seed: int, position: int) -> int:
    """What the request with `seed` says at `position`."""
    return (seed * 7919 + position * 104729) % 31_991


@dataclass(slots=True)
class Turn:
    """One sequence at one leader."""

    stream: LinkStream
    params: SamplingParams
    seed: int
    position: int
    suspect: bool
    acknowledged: bool = False
    spoke: bool = False  # a token of its came from here


class Leader:
    """A replica and the gateway's link to it in one: the part of `Link` that the gateway uses."""

    def __init__(self, world: "World", name: str) -> None:
        self.name, self._world = name, world
        self.load = Load()
        self.turns: dict[int, Turn] = {}
        self.lost: str | None = None
        self.frozen = self.dying = False
        self.pace = world.dice.uniform(0.005, 0.02) * (4.0 if world.dice.random() < 0.1 else 1.0)
        self._next = 0
        self._task = asyncio.ensure_future(self._run())

    @property
    def outstanding(self) -> int:
        return len(self.turns)

    def submit(
        self,
        prompt: tuple[int, ...],
        params: SamplingParams,
        *,
        seed: int,
        emitted: tuple[int, ...] = (),
        suspect: bool = False,
        **_: Any,
    ) -> LinkStream:
        """See `Link.submit`."""
        if self.lost is not None:
            raise ReplicaLost(self.name, self.lost)
        self._next += 1
        stream = LinkStream(cast("Link", self), self._next)
        self.turns[self._next] = Turn(stream, params, seed, len(emitted), suspect)
        return stream

    def cancel(self, number: int) -> None:
        self.turns.pop(number, None)

    def stop(self) -> None:
        """Compute no more."""
        self._task.cancel()

    def die(self, reason: str, beginners: Collection[int] = ()) -> None:
        """All at once, as when a connection closes. What it would still say nobody hears.

        Where its gang died in a step and it could still tell, `beginners` are the streams that began in that step.
        """
        if self.lost is not None:
            return
        self.lost = reason
        self._task.cancel()
        if len(beginners) == 1:
            self._world.alone[self.turns[next(iter(beginners))].seed] += 1
        for number, turn in self.turns.items():
            suspected = SuspectLost(self.name, reason, len(beginners))
            turn.stream.fail(suspected if number in beginners else ReplicaLost(self.name, reason))
        self.turns.clear()
        self._world.gone(self)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.pace * self._world.dice.uniform(0.5, 2.0))
            if not self.frozen:
                self._step()

    def _step(self) -> None:
        for number, turn in list(self.turns.items()):
            if not turn.acknowledged:
                self._accept(number, turn)
        works = self._works()
        beginners = {number for number in works if not self.turns[number].spoke}
        if self.dying or any(self._kills(self.turns[number]) for number in works):
            self.die("a rank died in a step", beginners)
            return
        most = self._world.dice.choice((1, 1, 1, 4))  # tokens in one frame
        for number in works:
            if number in self.turns:
                self._say(number, self.turns[number], most)
        self.load = Load(running=len(works), waiting=len(self.turns) - len(works))

    def _works(self) -> list[int]:
        """Who is in the next step: suspects begin with no other beginner beside them."""
        begun = [number for number, turn in self.turns.items() if turn.acknowledged and turn.spoke]
        fresh = [number for number, turn in self.turns.items() if turn.acknowledged and not turn.spoke]
        if fresh and self.turns[fresh[0]].suspect:
            return begun + fresh[:1]
        return begun + [number for number in fresh if not self.turns[number].suspect]

    def _kills(self, turn: Turn) -> bool:
        return turn.seed in self._world.poisonous and turn.position >= 3

    def _accept(self, number: int, turn: Turn) -> None:
        turn.acknowledged = True
        full = turn.position == 0 and self._world.dice.random() < self._world.refusals
        error = ("Overloaded", (MODEL, 9, 1)) if full else None
        if full:
            del self.turns[number]
        turn.stream.feed(Delta(number, (), finish="error" if full else None, error=error))

    def _say(self, number: int, turn: Turn, most: int) -> None:
        assert turn.params.max_tokens is not None
        count = min(most, turn.params.max_tokens - turn.position)
        said = tuple(token(turn.seed, turn.position + index) for index in range(count))
        turn.position += count
        turn.spoke = True
        done = turn.position == turn.params.max_tokens
        if done:
            del self.turns[number]
        turn.stream.feed(Delta(number, said, finish="length" if done else None))


@dataclass
class World:
    """The fleet, and the faults that befall it. All its choices come from `dice`."""

    dice: random.Random
    replicas: Replicas
    poisonous: set[int] = field(default_factory=set)
    refusals: float = 0.0
    leaders: list[Leader] = field(default_factory=list)
    deaths: int = 0
    alone: Counter[int] = field(default_factory=Counter)  # deaths by the request that alone began in that step
    _count: int = 0

    def start(self, count: int) -> None:
        for _ in range(count):
            self.rise()

    def rise(self) -> None:
        """Another replica is up."""
        self._count += 1
        name = f"{MODEL}#{self._count}"
        leader = Leader(self, name)
        self.leaders.append(leader)
        self.replicas.adopt(name, cast("Link", leader), Entry(MODEL, name, "", 0, "", 4096, 65_536, 0, (), (), 0.0))

    def gone(self, leader: Leader) -> None:
        """From a leader that died: the gateway drops it, and later another takes its place."""
        self.deaths += 1
        self.leaders.remove(leader)
        self.replicas.drop(leader.name)
        asyncio.get_running_loop().call_later(self.dice.uniform(0.05, 8.0), self.rise)

    def end(self) -> None:
        """Nobody computes any more."""
        for leader in self.leaders:
            leader.stop()

    async def trouble(self, mean: float) -> None:
        """For ever: a fault after `mean` seconds on average."""
        while True:
            await asyncio.sleep(self.dice.expovariate(1 / mean))
            if self.leaders:
                self._befall(self.dice.choice(self.leaders))

    def _befall(self, leader: Leader) -> None:
        loop = asyncio.get_running_loop()
        fault = self.dice.choice(("rank", "rank", "kill", "freeze", "slow", "leave", "blink"))
        if fault == "rank":
            leader.dying = True
        elif fault == "kill":
            leader.die("the connection to it closed")
        elif fault == "freeze":
            leader.frozen = True
            loop.call_later(SILENCE, leader.die, f"it has been silent for {SILENCE:g} s")
        elif fault == "slow":
            leader.pace *= 8
        elif fault == "leave":  # the directory has forgotten it; its streams go on until it ends
            self.replicas.drop(leader.name)
            loop.call_later(self.dice.uniform(0.0, 1.0), leader.die, "it has left")
        else:  # a pause that is over before anybody hangs up
            leader.frozen = True
            loop.call_later(self.dice.uniform(0.0, SILENCE / 2), setattr, leader, "frozen", False)
