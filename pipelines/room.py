"""What the gangs of models need of a cluster, and whether one more of each has room there.

Knows settings and what nodes have. Asks no cluster.
"""

from collections.abc import Sequence

from actors.settings import ModelSettings
from cluster.scheduling import placement
from cluster.scheduling.placement import Gang, Node

SERVES_SHARE = 0.2  # of the gangs, that Serve replaces at once


def bundle(model: ModelSettings, device: str) -> dict[str, float]:
    """What one shard needs on `device`, "cpu" or "cuda"."""
    gpu = {"GPU": 1.0} if device == "cuda" else {}
    return {"CPU": float(model.shard_cpus), **gpu}


def gang(model: ModelSettings, device: str) -> Gang:
    """What its gangs need, whole; of a model that scales, those to begin with."""
    needs = {name: amount * model.tensor_parallel_size for name, amount in bundle(model, device).items()}
    return Gang(model.name, needs, model.first_replicas)


def at_once(before: int, wanted: int) -> float:
    """The share of `wanted` gangs that Serve is to replace at once where new ones have no room beside old ones.

    Serve counts those that are yet to start among them: by its default gangs beyond `before` would wait for ever for
    what the old ones have, and none of these would end.
    """
    return max(SERVES_SHARE, min(1.0, (max(0, wanted - before) + 1.5) / max(1, wanted)))


def holds(gangs: Sequence[Gang], nodes: Sequence[Node]) -> bool:
    """Whether all gangs of these models have room at once."""
    return roomy([gang for gang in gangs for _ in range(gang.replicas)], nodes)


def roomy(gangs: Sequence[Gang], nodes: Sequence[Node]) -> bool:
    """Whether one more gang of every model has room: then a changed model's new gang starts beside the old one.

    Without room it could wait for ever for the cores that the old one has, which is therefore ended first.
    """
    left = list(nodes)
    for gang in gangs:
        name = placement.lands(gang, left)
        if name is None:
            return False
        left = [placement.without(node, gang.needs) if node.name == name else node for node in left]
    return True
