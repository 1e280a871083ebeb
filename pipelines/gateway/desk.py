"""What an endpoint works with: the models, the settings, the clock and chance.

One value, made by `app.create`, so that nothing in the gateway is a global.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.errors import NotFound
from cluster.security.keys import Principal
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Served
from pipelines.gateway.feedback import Feedback
from pipelines.gateway.mirror import Mirror
from pipelines.gateway.pace import Pace
from pipelines.gateway.settings import GatewaySettings
from pipelines.gateway.shelf import Shelf
from pipelines.routing.guide import Guide


class Keys(Protocol):
    """Who tells whose key it is."""

    def verify(self, key: str) -> Principal:
        """Raises Unauthenticated."""
        ...


Registry = Callable[[Principal, str, Mapping[str, Any]], Awaitable[dict[str, Any]]]  # see `Service.ask`


class Releases(Protocol):
    """Who is asked for routes, rollouts and experiments; see `routing.control.Control`."""

    def start(self, asked: Mapping[str, Any], by: str) -> Awaitable[Any]: ...

    def command(self, name: str, verb: str, by: str) -> Awaitable[Any]: ...

    def rollouts(self) -> Awaitable[Any]: ...

    def rollout(self, name: str) -> Awaitable[Any]: ...

    def routes(self) -> Awaitable[Any]: ...

    def route(self, model: str) -> Awaitable[Any]: ...

    def reroute(self, model: str, asked: Mapping[str, Any], by: str) -> Awaitable[Any]: ...

    def experiment(self, asked: Mapping[str, Any], by: str) -> Awaitable[Any]: ...

    def end(self, name: str, keep: str | None, by: str) -> Awaitable[Any]: ...

    def experiments(self) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What an endpoint works with."""

    models: Mapping[str, Served]
    keys: Keys
    metrics: Metrics
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    pace: Pace = field(default_factory=lambda: Pace(GatewaySettings().events_per_second))
    shelf: Shelf = field(default_factory=lambda: Shelf(0.0, 0))
    clock: Callable[[], float] = time.perf_counter
    wall: Callable[[], float] = time.time
    draw: Callable[[int], int] = secrets.randbits
    registry: Registry | None = None
    waiting: Callable[[], Mapping[str, str]] = dict  # why gangs of which models wait for a place
    guide: Guide = field(default_factory=lambda: Guide({}))
    feedback: Feedback = field(init=False, repr=False, compare=False)
    mirror: Mirror = field(init=False, repr=False, compare=False)
    releases: Releases | None = None  # None where no model has versions

    def __post_init__(self) -> None:
        object.__setattr__(self, "feedback", Feedback(self.guide))
        object.__setattr__(self, "mirror", Mirror(self.metrics, self.clock, self.guide.compared))

    def served(self, name: str) -> Served:
        """The model of that name. Raises NotFound with those there are."""
        found = self.models.get(name)
        if found is None:
            raise NotFound("model", name, tuple(sorted({*self.models, *self.guide.routes})))
        return found
