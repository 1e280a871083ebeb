"""What does it bring to send each turn of a chat where its prefix is and least is to do?

    python -m benchmarks.routing [--minutes N] [--seeds N]

Conversations of several turns over 4 replicas, against round robin and against the power of two choices by requests
under way, which is what Ray Serve does by default. The replicas are the real engines (scheduler, prefix cache, pace) on
a simulated clock with a 125 M model's step times; policies see loads a little late. Four cases: alike replicas at half
and at most of what they can do, one that is four times slower, and caches too small for all conversations. Tells how
much of the prompts was found in a cache, times to the first token, and the busiest replica over the mean. Writes
results/routing.json.
"""

import argparse
import random
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.messages import Delta
from actors.routing import Router, Ticket
from actors.settings import Limits
from benchmarks.record import quiet, write
from benchmarks.simulated_fleet import VOCABULARY, Fleet, Machine, Replica, Request, imbalance, percentile

NAMES = ("a", "b", "c", "d")
LAG = 0.002  # seconds from a gateway to a replica and back to it
BLOCK = 16
LIMITS = Limits(block_tokens=BLOCK, batch_stretch=None)


@dataclass(frozen=True, slots=True)
class Case:
    """`chats` run side by side, each with pauses of `pause` seconds on average between turns."""

    name: str
    chats: int
    pause: float = 8.0
    blocks: int = 6_000  # of a replica's cache
    slow: dict[str, float] = field(default_factory=dict)


CASES = (
    Case("half busy", 48),
    Case("busy", 96),
    Case("one four times slower", 64, slow={"d": 4.0}),
    Case("small caches", 64, blocks=700),
)


class RoundRobin:
    """One after the other."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._next = fleet, 0

    def choose(self, request: Request) -> str:
        self._next += 1
        return NAMES[self._next % len(NAMES)]

    def told(self, name: str, request: Request, delta: Delta, now: float) -> None:
        """It does not listen."""


class TwoChoices:
    """Of two by lot the one with fewer requests under way."""

    def __init__(self, fleet: Fleet) -> None:
        self._dice = random.Random(1)
        self._ongoing = Counter(dict.fromkeys(NAMES, 0))

    def choose(self, request: Request) -> str:
        name = min(self._dice.sample(NAMES, 2), key=lambda name: self._ongoing[name])
        self._ongoing[name] += 1
        return name

    def told(self, name: str, request: Request, delta: Delta, now: float) -> None:
        self._ongoing[name] -= request.done


class Ours:
    """The gateway's router."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, dice = fleet, random.Random(1)
        self._router = Router(lambda: fleet.now, roll=lambda: dice.getrandbits(32))
        for name, replica in fleet.replicas.items():
            self._router.add(name, BLOCK * replica.blocks)
        self._tickets: dict[int, Ticket] = {}
        self._ongoing = Counter(dict.fromkeys(NAMES, 0))

    def choose(self, request: Request) -> str:
        loads = {name: (load, self._ongoing[name]) for name, load in self._fleet.loads.items()}
        ticket = self._router.choose(request.prompt, "", loads)
        self._tickets[id(request)] = ticket
        self._ongoing[ticket.replica] += 1
        return ticket.replica

    def told(self, name: str, request: Request, delta: Delta, now: float) -> None:
        ticket = self._tickets[id(request)]
        if delta.tokens:
            ticket.first(delta.cached_tokens)
        if request.done:
            self._ongoing[name] -= 1
            self._tickets.pop(id(request)).ended(request.tokens)


POLICIES: dict[str, Callable[[Fleet], Any]] = {
    "round robin": RoundRobin,
    "two choices": TwoChoices,
    "prefix and queue": Ours,
}


class Chat:
    """One conversation after another: turns that bring all that was said before."""

    def __init__(self, case: Case, dice: random.Random, systems: list[list[int]]) -> None:
        self._case, self._dice, self._systems = case, dice, systems
        self._said: list[int] = []
        self._turns = 0

    def next(self, now: float, last: Request | None) -> Request:
        if last is not None:
            self._said += last.tokens
        if self._turns == 0:
            self._said, self._turns = list(self._dice.choice(self._systems)), self._dice.randint(3, 9)
        self._turns -= 1
        self._said += self._dice.choices(range(10, VOCABULARY), k=self._dice.randint(20, 160))
        return Request(tuple(self._said), self._dice.randint(20, 120), now)

    def pause(self) -> float:
        return self._dice.expovariate(1 / self._case.pause)


def simulate(case: Case, policy: str, seconds: float, seed: int) -> dict[str, float]:
    """One case under one policy."""
    dice = random.Random(seed)
    systems = [dice.choices(range(10, VOCABULARY), k=dice.randint(100, 900)) for _ in range(8)]
    finished: list[Request] = []
    chats: dict[int, Chat] = {}

    def told(name: str, request: Request, delta: Delta, now: float) -> None:
        router.told(name, request, delta, now)
        if request.done:
            finished.append(request)
            chat = chats.pop(id(request))
            fleet.at(now + chat.pause(), lambda then: send(chat, then, request))

    def send(chat: Chat, now: float, last: Request | None) -> None:
        request = chat.next(now, last)
        chats[id(request)] = chat
        fleet.submit(router.choose(request), request, now)

    machines = {name: Machine(slower=case.slow.get(name, 1.0)) for name in NAMES}
    fleet = Fleet([Replica(name, machines[name], LIMITS, case.blocks, seed) for name in NAMES], told, LAG)
    router = POLICIES[policy](fleet)
    for _ in range(case.chats):
        chat = Chat(case, random.Random(dice.random()), systems)
        fleet.at(chat.pause(), lambda then, chat=chat: send(chat, then, None))
    fleet.run(seconds)
    engines = [replica.engine.load for replica in fleet.replicas.values()]
    waits = [request.first - request.arrived for request in finished if request.first is not None]
    busy = [replica.busy_seconds for replica in fleet.replicas.values()]
    return {
        "turns": len(finished),
        "hit_rate": sum(load.prefix_hits for load in engines) / sum(load.prefix_queries for load in engines),
        "first_token_p50_ms": 1e3 * percentile(waits, 0.5),
        "first_token_p99_ms": 1e3 * percentile(waits, 0.99),
        "busiest_over_mean": imbalance(busy),
        "busy_share": statistics.mean(busy) / seconds,
    }


def _line(case: str, policy: str, row: dict[str, float]) -> str:
    return (
        f"{case:<23}{policy:<18}{row['turns']:>5.0f}  {row['hit_rate']:>5.1%}  {row['first_token_p50_ms']:>16.0f}"
        f"  {row['first_token_p99_ms']:>8.0f}  {row['busiest_over_mean']:>8.2f}  {row['busy_share']:>5.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    load, table = quiet(), {}
    print(f"{'':<23}{'':<18}turns   hits   first token p50     p99 ms   busiest   busy")
    for case in CASES:
        for policy in POLICIES:
            rows = [simulate(case, policy, 60 * options.minutes, seed) for seed in range(options.seeds)]
            row = {key: statistics.median(each[key] for each in rows) for key in rows[0]}
            table[f"{case.name}: {policy}"] = row
            print(_line(case.name, policy, row), flush=True)
    result = {"question": __doc__.splitlines()[0], "minutes": options.minutes, "seeds": options.seeds, "cases": table}
    print(f"kept in {write('routing', result, load_before=load)}")


if __name__ == "__main__":
    main()
