"""More is asked than can be served: the real engines, router and admission on a simulated clock.

Requests come at random instants whatever becomes of those before (an open loop), and who is refused comes again after
the time that it was told, or goes away. What a step takes is made up, of a model of 250 M on two cores.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.messages import Delta
from actors.routing import Router, Ticket, queue_of
from actors.settings import Limits
from benchmarks.simulated_fleet import VOCABULARY, Fleet, Machine, Replica, Request, percentile
from cluster.scheduling import admission

LAG = 0.002  # seconds from the gateway to a replica and back to it
BLOCK = 16
MACHINE = Machine(slower=2.0)


@dataclass(frozen=True, slots=True)
class Phase:
    """So many requests a second until then."""

    rate: float
    until: float


@dataclass(slots=True)
class Seen:
    """What came of it: requests in the order in which they came, and when who was refused."""

    requests: list[Request] = field(default_factory=list)
    ended: dict[int, float] = field(default_factory=dict)
    refused: list[tuple[float, int]] = field(default_factory=list)  # when, and after how many seconds to come again

    def tokens_per_second(self, since: float, until: float) -> float:
        """Of answers that ended whole in that time."""
        whole = (len(each.tokens) for each in self.requests if since <= self.ended.get(id(each), -1.0) < until)
        return sum(whole) / (until - since)

    def first_p99(self, since: float, until: float) -> float:
        """Seconds to the first token, of who came in that time and was let in."""
        came = [each for each in self.requests if since <= each.arrived < until and each.first is not None]
        return percentile([each.first - each.arrived for each in came if each.first is not None], 0.99)

    def whole_p99(self, since: float, until: float) -> float:
        """Seconds to the end, likewise."""
        came = [each for each in self.requests if since <= each.arrived < until and id(each) in self.ended]
        return percentile([self.ended[id(each)] - each.arrived for each in came], 0.99)


def play(
    phases: Sequence[Phase],
    rules: admission.Rules | None,
    limits: Limits,
    replicas: int = 1,
    stubborn: float = 0.5,
    seed: int = 0,
    machine: Machine = MACHINE,
) -> Seen:
    """All phases, one after the other. Without `rules` only the length of the queue counts.

    `stubborn`: the share of who is refused and comes again.
    """
    dice, seen = random.Random(seed), Seen()
    names = [f"r{index}" for index in range(replicas)]
    own = dict.fromkeys(names, 0)
    tickets: dict[int, Ticket] = {}

    def told(name: str, request: Request, delta: Delta, now: float) -> None:
        if delta.tokens:
            tickets[id(request)].first(delta.cached_tokens)
        if request.done:
            own[name] -= 1
            seen.ended[id(request)] = now
            tickets.pop(id(request)).ended(request.tokens)

    fleet = Fleet([Replica(name, machine, limits, 8_000, seed) for name in names], told, LAG)
    router = Router(lambda: fleet.now, roll=lambda: dice.getrandbits(32))
    for name in names:
        router.add(name, BLOCK * 8_000)

    def come(now: float) -> None:
        prompt = tuple(dice.choices(range(10, VOCABULARY), k=dice.randint(32, 256)))
        ask(Request(prompt, dice.randint(32, 160), now), now)

    def ask(request: Request, now: float) -> None:
        sent = router.waiting()
        tokens = len(request.prompt)
        queues = {name: queue_of(fleet.loads[name], own[name], sent[name], 0) for name in router.usable(names)}
        away = admission.away_seconds(list(queues.values()), tokens, None, rules) if rules else None
        if away is not None:
            refuse(request, away, now)
            return
        takers = [
            name
            for name, queue in queues.items()
            if rules is None or admission.away_seconds([queue], tokens, None, rules) is None
        ]
        ticket = router.choose(request.prompt, "", {name: (fleet.loads[name], own[name]) for name in takers})
        tickets[id(request)] = ticket
        own[ticket.replica] += 1
        seen.requests.append(request)
        fleet.submit(ticket.replica, request, now)

    def refuse(request: Request, away: int, now: float) -> None:
        seen.refused.append((now, away))
        if dice.random() < stubborn:
            later = now + away * dice.uniform(1.0, 1.5)
            fleet.at(later, lambda then: ask(Request(request.prompt, request.wanted, then), then))

    now = 0.0
    for phase in phases:
        for _ in itertools.count():
            now += dice.expovariate(phase.rate)
            if now >= phase.until:
                now = phase.until
                break
            fleet.at(now, come)
    fleet.run(phases[-1].until + 60.0)
    return seen
