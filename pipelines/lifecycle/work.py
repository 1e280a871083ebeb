"""What a step of a run has at hand, and what it comes to.

Knows the shape of both. Knows no step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from actors.registry.desk import Desk
from actors.registry.registry import Registry
from actors.registry.requests import Requirements
from cluster.condition import parse
from pipelines.lifecycle.declared import Pipeline, Train
from pipelines.lifecycle.run import Event, Run
from pipelines.settings import Settings


class Hands(Protocol):
    """Who does what takes a cluster."""

    def needs(self, train: Train) -> str:
        """What training takes of the cluster, in words."""
        ...

    def free(self) -> str:
        """How much of the cluster nobody has, in words; empty where that is not known."""
        ...

    def tune(self, config: Mapping[str, Any]) -> None:
        """See `tuning.tune_worker`, on as many workers as the config says."""
        ...

    def measure(
        self, folder: str, files: Mapping[str, str], max_tokens: int, cpus: int, begun: str
    ) -> dict[str, Any]:  # fmt: skip
        """See `answering.measure`."""
        ...

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the gateway answers."""
        ...

    def pause(self, seconds: float) -> None:
        """Let time go by."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """At hand: the run as it is, its folder, and who keeps what.

    `tell`: the share that is done and what there is to say of it. `keep`: what the step needs if it is cut here. Both
    raise Conflict once the run was cancelled.
    """

    run: Run
    pipeline: Pipeline
    settings: Settings
    registry: Registry
    folder: Path
    hands: Hands
    tell: Callable[[float, str], None]
    keep: Callable[[Mapping[str, Any]], None]

    @property
    def author(self) -> str:
        """In whose name the registry is changed: not in that of who began the run, who may approve what it made."""
        return f"pipeline {self.pipeline.name}"

    @property
    def desk(self) -> Desk:
        """Where merge requests are."""
        own = self.settings.registry
        wanted = tuple(parse(text, "registry.conditions") for text in own.conditions)
        return Desk(self.registry, Requirements(own.approvals, wanted))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a step. `event`: what it means for the run, if it does not just go on, and why; WAITS leaves the step open."""

    note: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    event: Event | None = None
    reason: str = ""
