"""Whether gangs can be placed at all: what they need against what each node has in all.

Refuses only what can never be: a node's whole size counts, not what is free now, since what holds it may end. A few
gangs on a few nodes are also refused where each would fit but no arrangement holds them all (`packing`, which tries
every one); of many that is not asked. Knows numbers; asks no cluster.

Which node a gang gets is Ray's choice, and `lands` says what it is: the one whose share of free resources stays the
largest (LeastResourceScorer in Ray's bundle scheduling). So the replicas of a model spread over nodes of one size, and
where one node is far larger they gather there until it is as full as the rest. Nothing in Ray 2.60 asks for more:
Serve takes no max_replicas_per_node beside placement groups, a label selector is the same for all replicas, and an
implicit resource in a bundle ends the raylet.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.errors import PlacementImpossible
from cluster.scheduling import inventory, packing
from cluster.scheduling.needs import WHOLE, Need

SHOWN = ("CPU", "GPU")  # of what a node has, what a gang asks for
NAMED = 3  # nodes that have the same and are told one by one
_SLACK = 1e-6  # Ray counts resources in ten-thousandths


@dataclass(frozen=True, slots=True)
class Gang:
    """One model's gangs: what one of them needs on a single node, and how many there shall be."""

    model: str
    needs: Mapping[str, float]
    replicas: int


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the cluster and what it may hand out: all of it, or what is free."""

    name: str
    total: Mapping[str, float]


def check(gangs: Sequence[Gang], nodes: Sequence[Node]) -> None:
    """Raises PlacementImpossible for the first gang that no node holds, or if all of them are too much together."""
    for gang in gangs:
        if sum(_copies(gang, node) for node in nodes) < gang.replicas:
            raise PlacementImpossible(gang.model, _needs(gang), _told(nodes))
    for name in sorted({name for gang in gangs for name in gang.needs}):
        wanted = sum(gang.needs.get(name, 0) * gang.replicas for gang in gangs)
        if wanted > sum(node.total.get(name, 0) for node in nodes) + _SLACK:
            models = " and ".join(gang.model for gang in gangs)
            raise PlacementImpossible(models, f"{wanted:g} {name} together", _told(nodes))
    for refused in packing.plan(_machines(nodes), _wanted(gangs)).refused:
        if refused.proven:
            needs = next(gang for gang in gangs if gang.model == refused.model)
            raise PlacementImpossible(refused.model, f"{_needs(needs)} beside all others", _told(nodes))


def lands(gang: Gang, free: Sequence[Node]) -> str | None:
    """The node on which the gang's next replica is placed, by what is free now; None where it fits on none."""
    asked = [(name, amount) for name, amount in gang.needs.items() if amount > 0]
    fitting = [node for node in free if all(node.total.get(name, 0) + _SLACK >= amount for name, amount in asked)]

    def left(node: Node) -> float:
        return sum(1 - amount / node.total[name] for name, amount in asked)

    return max(fitting, key=left).name if fitting else None


def gathered(gang: Gang, free: Sequence[Node]) -> bool:
    """Whether all of several replicas come to stand on one node although there are others: they would end together."""
    left, chosen = list(free), set()
    for _ in range(gang.replicas):
        name = lands(gang, left)
        if name is None:
            return False  # not placed now; where it will be nobody knows
        chosen.add(name)
        left = [without(node, gang.needs) if node.name == name else node for node in left]
    return gang.replicas > 1 and len(free) > 1 and len(chosen) == 1


def without(node: Node, needs: Mapping[str, float]) -> Node:
    """The node when it has handed out `needs` besides."""
    return Node(node.name, {name: amount - needs.get(name, 0) for name, amount in node.total.items()})


def _machines(nodes: Sequence[Node]) -> list[inventory.Node]:
    """The nodes as the planner knows them; their memory is not looked at here."""
    counts = [int(node.total.get("GPU", 0)) for node in nodes]
    devices = [inventory.Accelerators("GPU", "", count, 0) if count else None for count in counts]
    return [
        inventory.Node(node.name, node.total.get("CPU", 0), 0, device)
        for node, device in zip(nodes, devices, strict=True)
    ]


def _wanted(gangs: Sequence[Gang]) -> list[Need]:
    """The gangs as the planner knows them, without those that take part of a GPU or nothing: they are in nobody's way.

    To leave needs out makes a plan easier: what is refused still can never be.
    """
    wanted = []
    for gang in gangs:
        cores, devices = gang.needs.get("CPU", 0), gang.needs.get("GPU", 0)
        if devices == int(devices) and (cores or devices):
            kind, degree = ("GPU", int(devices)) if devices else ("CPU", 1)
            each = int(cores * WHOLE) // degree / WHOLE
            wanted.append(Need(gang.model, {"": 0}, "", 0, degree, gang.replicas, (kind,), spread="none", cores=each))
    return wanted


def _copies(gang: Gang, node: Node) -> int:
    """How many of these gangs the node holds when it holds nothing else."""
    needed = [(name, amount) for name, amount in gang.needs.items() if amount > 0]
    if not needed:
        return gang.replicas
    return min(int((node.total.get(name, 0) + _SLACK) / amount) for name, amount in needed)


def _needs(gang: Gang) -> str:
    one = f"{_amounts(gang.needs)} on one node"
    return one if gang.replicas == 1 else f"{gang.replicas} times {one}"


def _told(nodes: Iterable[Node]) -> str:
    """What each node has, those that have the same together where they are many."""
    alike: dict[str, list[str]] = {}
    for node in nodes:
        alike.setdefault(_amounts(node.total), []).append(node.name)
    said = []
    for amounts, names in alike.items():
        if len(names) > NAMED:
            said.append(f"{len(names)} nodes like {names[0]}: {amounts}")
        else:
            said += [f"{name}: {amounts}" for name in names]
    return ", ".join(said) or "no node"


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{resources[name]:g} {name}" for name in SHOWN if resources.get(name)) or "0 CPU"
