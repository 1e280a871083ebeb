"""What clients ask of each model that scales and how its gangs fare, for Serve's controller, which asks.

A plain class that an actor of its own runs. Holds nothing that could not be learnt again: everybody repeats himself.
What the controller is told and tells are plain values: its process may run other code of ours than this, or none.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TELL_SECONDS = 1.0  # how often a gateway tells; at once, when a request finds no gang
SILENCE_SECONDS = 10.0  # after which a gateway is gone, and what waited there with it
FORGOTTEN_SECONDS = 120.0  # after which a gang that said no goodbye is forgotten; old news long before that

DEMAND = "demand"  # the actor's name


@dataclass(frozen=True, slots=True)
class Fare:
    """How one gang fares, as its leader says: seconds and shares as in `scaling.Report`, and whether anything runs."""

    waiting: float
    kv_used: float
    running: float
    first_token: float
    requests_per_second: float
    busy: bool
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What one gateway has of one model: requests that wait for a gang, those under way, all that ever came."""

    held: int
    outstanding: int
    came: int
    context_tokens: int = 0


@dataclass(slots=True)
class _Model:
    """One model. `active`: when somebody last wanted something; `context`: the last that a gang could hold."""

    active: float
    context: int = 0
    fares: dict[str, tuple[Fare, float]] = field(default_factory=dict)
    wishes: dict[str, tuple[Wish, float]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    told_at: float = 0.0


class Demand:
    """All calls from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: dict[str, _Model] = {}

    async def fares(self, model: str, replica: str, fare: Fare) -> None:
        """A leader says how its gang fares."""
        known, now = self._model(model), self._clock()
        if fare.busy or replica not in known.fares:  # a gang that is new was wanted
            known.active = now
        known.fares[replica] = fare, now
        known.context = fare.context_tokens

    async def leaves(self, model: str, replica: str) -> None:
        """A gang ends."""
        self._model(model).fares.pop(replica, None)

    async def wishes(self, gateway: str, wishes: Mapping[str, Wish]) -> dict[str, int]:
        """A gateway says what it has of each model; what a gang of each holds, 0 where nobody knows."""
        now = self._clock()
        for model, wish in wishes.items():
            known = self._model(model)
            before = known.wishes.get(gateway)
            if wish.held or wish.outstanding or (before is not None and before[0].came != wish.came):
                known.active = now
            known.wishes[gateway] = wish, now
            known.context = known.context or wish.context_tokens
        return {model: self._model(model).context for model in wishes}

    async def weigh(self, model: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """The controller says what it decided, if anything, and asks for all that the next decision needs."""
        known, now = self._model(model), self._clock()
        if told:
            known.told, known.told_at = dict(told), now
        known.fares = {name: each for name, each in known.fares.items() if now - each[1] <= FORGOTTEN_SECONDS}
        known.wishes = {name: each for name, each in known.wishes.items() if now - each[1] <= SILENCE_SECONDS}
        return {
            "reports": [
                {
                    "age": now - heard,
                    "waiting": fare.waiting,
                    "kv_used": fare.kv_used,
                    "running": fare.running,
                    "first_token": fare.first_token,
                    "requests_per_second": fare.requests_per_second,
                }
                for fare, heard in known.fares.values()
            ],
            "held": sum(wish.held for wish, _ in known.wishes.values()),
            "idle": now - known.active,
            "known": known.context > 0,
        }

    async def decided(self) -> dict[str, dict[str, Any]]:
        """What was decided last of each model, and how many seconds ago."""
        now = self._clock()
        fresh = [(name, each) for name, each in self._models.items() if now - each.told_at <= FORGOTTEN_SECONDS]
        return {name: {**each.told, "seconds_ago": now - each.told_at} for name, each in fresh if each.told}

    def _model(self, name: str) -> _Model:
        known = self._models.get(name)
        if known is None:
            known = self._models[name] = _Model(self._clock())
        return known
