"""Replicas on a clock of their own: the real engines over a model that only takes time.

Scheduler, blocks, prefix cache and pace are those that serve; what is made up is how long a step takes, and the tokens.
"""

import heapq
import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from actors.engine.admission import Facts
from actors.engine.loop import Engine
from actors.engine.plan import Plan, Result
from actors.messages import Delta, Load, SamplingParams, Submit
from actors.settings import Limits

VOCABULARY = 32_000


@dataclass(frozen=True, slots=True)
class Machine:
    """Seconds of a step, of a prompt token in it, and of a decode in it; `slower` than others by a factor."""

    step: float = 0.006
    prompt_token: float = 0.00033
    decode: float = 0.0004
    slower: float = 1.0


class Clock:
    """Seconds, as far as the fleet is."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pretended:
    """An executor that draws tokens by lot; `took` is what its last plan took."""

    def __init__(self, machine: Machine, clock: Clock, seed: int) -> None:
        self._machine, self._clock = machine, clock
        self._dice = np.random.default_rng(seed)
        self.took = 0.0

    def execute(self, plan: Plan) -> Result:
        decodes = plan.decodes
        prompt = int(plan.counts.sum()) - decodes
        one = self._machine.step + self._machine.decode * decodes + self._machine.prompt_token * prompt
        self.took = one * plan.steps * self._machine.slower
        self._clock.now += self.took
        rows = len(plan.samples)
        tokens = self._dice.integers(10, VOCABULARY, rows * plan.steps).tolist()
        return Result(plan.number, tokens, steps=plan.steps, counts=(plan.steps,) * rows, forward_seconds=self.took)

    def check(self) -> None:
        """Nothing can be lost."""

    def interrupt(self, wanted: bool) -> None:
        """Plans are short."""


@dataclass(slots=True)
class Request:
    """One turn under way. `tokens` are its answer's."""

    prompt: tuple[int, ...]
    wanted: int
    arrived: float
    replica: str = ""
    first: float | None = None
    cached: int = 0
    tokens: list[int] = field(default_factory=list)
    done: bool = False


class Replica:
    """One engine, and when it is free again."""

    def __init__(self, name: str, machine: Machine, limits: Limits, blocks: int, seed: int) -> None:
        self.name, self.blocks, self.clock = name, blocks, Clock()
        self._executor = Pretended(machine, self.clock, seed)
        facts = Facts(name, VOCABULARY, 8192, blocks, ())
        self.engine = Engine(self._executor, facts, limits, self.clock)
        self.requests: dict[int, Request] = {}
        self.busy_seconds = 0.0
        self.stepping = False

    def add(self, now: float, request: Request) -> None:
        """Queue it."""
        self.clock.now = max(self.clock.now, now)
        params = SamplingParams(temperature=0.0, max_tokens=request.wanted, ignore_eos=True)
        self.requests[self.engine.add(Submit(0, request.prompt, params, seed=0))] = request

    def step(self, now: float) -> tuple[float, list[tuple[Request, Delta]]]:
        """One plan: when it is over, and what it brought."""
        self.clock.now = now
        deltas = self.engine.step()
        self.busy_seconds += self.clock.now - now
        return self.clock.now, [(self.requests[key], delta) for key, delta in deltas]


Told = Callable[[str, Request, Delta, float], None]


class Fleet:
    """Replicas side by side, and whatever is to happen when. `told` hears every delta at its time."""

    def __init__(self, replicas: list[Replica], told: Told, lag: float) -> None:
        self.replicas = {replica.name: replica for replica in replicas}
        self._told, self._lag = told, lag
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count: Iterator[int] = itertools.count()
        self.loads: dict[str, Load] = {name: Load() for name in self.replicas}
        self.now = 0.0

    def at(self, when: float, what: Callable[[float], None]) -> None:
        """Do that then."""
        heapq.heappush(self._events, (when, next(self._count), what))

    def submit(self, name: str, request: Request, now: float) -> None:
        """Send it to a replica, which hears of it `lag` seconds later."""
        request.replica = name
        self.at(now + self._lag, lambda then: self._take(name, request, then))

    def run(self, until: float) -> None:
        """All that happens before `until`."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what(self.now)

    def _take(self, name: str, request: Request, now: float) -> None:
        replica = self.replicas[name]
        replica.add(now, request)
        if not replica.stepping:
            self._step(replica, now)

    def _step(self, replica: Replica, now: float) -> None:
        replica.stepping = replica.engine.busy
        if not replica.stepping:
            return
        over, deltas = replica.step(now)
        load = replica.engine.load
        self.at(over + self._lag, lambda then: self._hear(replica.name, load, deltas, then))
        self.at(over, lambda then: self._step(replica, then))

    def _hear(self, name: str, load: Load, deltas: list[tuple[Request, Delta]], now: float) -> None:
        self.loads[name] = load
        for request, delta in deltas:
            if delta.tokens and request.first is None:
                request.first, request.cached = now, delta.cached_tokens
            request.tokens += delta.tokens
            request.done = delta.finish is not None
            self._told(name, request, delta, now)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie."""
    return float(np.percentile(values, 100 * share)) if values else 0.0


def imbalance(busy: list[float]) -> float:
    """The busiest over the mean; 1 is even."""
    return max(busy) / statistics.mean(busy) if any(busy) else 1.0
