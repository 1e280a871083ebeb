"""One model's plan as options of Ray Serve deployments: bundles, strategy, and labels that hold a gang on its nodes.

Ray Serve 2.60 takes one list of bundles with one list of selectors for all replicas of a deployment, and refuses
`max_replicas_per_node` beside them. So replicas that stand on different nodes are held there exactly only by a
deployment for each node; `together` is one deployment for all, which keeps the nodes and leaves to Ray which replica
gets which. It has no selector for "one interconnect domain": the nodes of a gang that spans several are named bundle by
bundle, and Serve's own packing (RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY) must be off for that, as it is by default.

Knows plans and the shape of these options; imports no Ray. A node's name must be Ray's id of it, as `of_ray` has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.scheduling.inventory import CPU, NODE
from cluster.scheduling.needs import WHOLE
from cluster.scheduling.plan import Placed


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a Serve deployment is told of its placement. `selectors` stand one for each bundle."""

    replicas: int
    bundles: tuple[dict[str, float], ...]
    strategy: str
    selectors: tuple[dict[str, str], ...]

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `serve.deployment(...).options`."""
        return {
            "num_replicas": self.replicas,
            "placement_group_bundles": [dict(bundle) for bundle in self.bundles],
            "placement_group_strategy": self.strategy,
            "placement_group_bundle_label_selector": [dict(selector) for selector in self.selectors],
        }


def exactly(gangs: Sequence[Placed]) -> tuple[Deployed, ...]:
    """The gangs of one model as deployments that put each where the plan has it: one for each set of nodes."""
    alike: dict[tuple[object, ...], list[Placed]] = {}
    for gang in gangs:
        alike.setdefault((gang.ask, tuple((seat.node, seat.shards) for seat in gang.seats)), []).append(gang)
    return tuple(
        Deployed(len(group), bundles(group[0]), strategy(group[0]), selectors(group[0])) for group in alike.values()
    )


def together(gangs: Sequence[Placed]) -> Deployed:
    """The gangs of one model as one deployment that is kept to the plan's nodes.

    Raises ValueError where the gangs differ in what they ask, or one spans nodes: one selector cannot say that.
    """
    if len({gang.ask for gang in gangs}) != 1 or any(len(gang.seats) > 1 for gang in gangs):
        raise ValueError(f"the gangs of {gangs[0].model} need a deployment each" if gangs else "there are no gangs")
    nodes = sorted({gang.seats[0].node for gang in gangs})
    value = nodes[0] if len(nodes) == 1 else f"in({', '.join(nodes)})"
    return Deployed(len(gangs), bundles(gangs[0]), "STRICT_PACK", ({NODE: value},) * gangs[0].ask.shards)


def bundles(gang: Placed) -> tuple[dict[str, float], ...]:
    """What each shard reserves, the leader's first."""
    one: dict[str, float] = {}
    if gang.ask.cores:
        one[CPU] = gang.ask.cores / WHOLE
    if gang.ask.parts:
        one[gang.ask.kind] = gang.ask.parts / WHOLE
    if gang.ask.memory:
        one["memory"] = float(gang.ask.memory)
    return tuple(dict(one) for _ in range(gang.ask.shards))


def strategy(gang: Placed) -> str:
    """Ray's word for one node, or for several that are named."""
    return "STRICT_PACK" if len(gang.seats) == 1 else "PACK"


def selectors(gang: Placed) -> tuple[dict[str, str], ...]:
    """The node of each shard."""
    return tuple({NODE: seat.node} for seat in gang.seats for _ in range(seat.shards))
