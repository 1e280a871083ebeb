"""What the gangs of models need of a cluster, and whether one more of each has room there.

Knows settings and what nodes have. Asks no cluster.
"""

from collections.abc import Sequence

from actors.settings import ModelSettings
from cluster.scheduling import placement
from cluster.scheduling.placement import Gang, Node


def bundle(model: ModelSettings, device: str) -> dict[str, float]:
    """What one shard needs on `device`, "cpu" or "cuda"."""
    gpu = {"GPU": 1.0} if device == "cuda" else {}
    return {"CPU": float(model.shard_cpus), **gpu}


def gang(model: ModelSettings, device: str) -> Gang:
    """What its gangs need, whole; of a model that scales, those to begin with."""
    needs = {name: amount * model.tensor_parallel_size for name, amount in bundle(model, device).items()}
    return Gang(model.name, needs, model.first_replicas)


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
