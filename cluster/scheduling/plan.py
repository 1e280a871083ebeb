"""What the planner says: which gang stands where and why, and what found no place.

Knows values. How they come about stands in `packing` and `replan`, how they are told in `explain`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from cluster.scheduling.inventory import Node
from cluster.scheduling.needs import Ask, Need

Key = tuple[str, int]  # model and number of the replica


@dataclass(frozen=True, slots=True)
class Seat:
    """Shards of a gang on one node, and the devices that they take there: none on CPU."""

    node: str
    shards: int
    devices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Why:
    """What spoke for a place when it was chosen.

    `left`: whole devices (cores, on CPU) that stay free on the seats' nodes; `beside`, `in_zone`: gangs of the same
    model on the node and in the zone already; `way`: how it got there.
    """

    left: int
    beside: int
    in_zone: int
    way: str = "fits"  # or: "packed" by the search, "made room" by moving others, "moved" for that, "spare"


@dataclass(frozen=True, slots=True)
class Placed:
    """One gang and its seats: one, or several nodes of one interconnect domain."""

    model: str
    replica: int
    ask: Ask
    seats: tuple[Seat, ...]
    why: Why

    @property
    def key(self) -> Key:
        return self.model, self.replica


@dataclass(frozen=True, slots=True)
class Refused:
    """Gangs of one model that found no place: what one needs, what there is, and what would make them fit.

    `proven` says that no arrangement of all the gangs could have held them; else none was found.
    """

    model: str
    replicas: int
    needs: str
    there: str
    remedies: tuple[str, ...]
    proven: bool

    def __str__(self) -> str:
        gangs = "1 gang" if self.replicas == 1 else f"{self.replicas} gangs"
        reason = "cannot be placed" if self.proven else "found no place"
        remedy = " or ".join(self.remedies) or "nothing that was tried would make it fit"
        return f"{self.model}: {gangs} {reason}: each needs {self.needs}; there is {self.there}; {remedy}"


@dataclass(frozen=True)
class Plan:
    """Where everything stands. `spare` nodes are kept empty for failover; `notes` say where a wish was not met.

    `nodes` and `needs` are what it was made of: what of them is the same next time is not looked at again.
    """

    placed: Mapping[Key, Placed] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    spare: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict, repr=False)
    needs: Mapping[str, Need] = field(default_factory=dict, repr=False)

    @cached_property
    def by_model(self) -> Mapping[str, tuple[Placed, ...]]:
        """The gangs of each model, by number."""
        models: dict[str, list[Placed]] = {}
        for gang in self.placed.values():
            models.setdefault(gang.model, []).append(gang)
        return {model: tuple(sorted(gangs, key=lambda gang: gang.replica)) for model, gangs in models.items()}

    @cached_property
    def used(self) -> frozenset[str]:
        """The nodes on which something stands."""
        return frozenset(seat.node for gang in self.placed.values() for seat in gang.seats)
