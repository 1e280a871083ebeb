"""How few nodes could do, and which demands exceed all that there is.

Knows sizes and capacities. A bound never exceeds the best arrangement; nothing here says how to reach it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from cluster.scheduling.board import Board
from cluster.scheduling.inventory import CPU, Node
from cluster.scheduling.needs import WHOLE, Need
from cluster.scheduling.plan import Placed, Plan


def bins(sizes: Sequence[int], capacity: int) -> int:
    """L2 of Martello and Toth (Knapsack Problems, 1990, chapter 8.3): bins that things of these sizes need at least.

    For each threshold K: what exceeds C - K shares its bin with nothing that counts, what exceeds C / 2 has a bin of
    its own, and what is left of K and more must go into the holes of those or into further bins.
    """
    ordered = sorted(sizes)
    sums = [0, *accumulate(ordered)]
    half = bisect_right(ordered, capacity // 2)
    best = -(-sums[-1] // capacity)
    for threshold in {0, *ordered[:half]}:
        alone = bisect_right(ordered, capacity - threshold)
        least = bisect_left(ordered, threshold)
        own = max(alone - half, 0)
        hole = own * capacity - (sums[max(alone, half)] - sums[half])
        rest = -(-max(sums[half] - sums[least] - hole, 0) // capacity)
        best = max(best, len(ordered) - max(alone, half) + own + rest)
    return best


def fewest(gangs: Iterable[Placed], nodes: Sequence[Node]) -> int:
    """Nodes of one type that these gangs need at least: the largest of the bounds by devices, cores and memory.

    Gangs that share devices need at least L2 devices, which count as gangs of one; one that spans nodes counts by its
    volume. Cores and memory count by volume against the largest node.
    """
    gangs, devices = (
        list(gangs),
        max((node.accelerators.count if node.accelerators else 0 for node in nodes), default=0),
    )
    shared = bins([gang.ask.parts for gang in gangs if gang.ask.shared], WHOLE)
    whole = [gang.ask.shards for gang in gangs if gang.ask.parts == WHOLE]
    within = [size for size in whole if size <= devices]
    cores = sum(gang.ask.shards * gang.ask.cores for gang in gangs)
    memory = sum(gang.ask.shards * gang.ask.memory for gang in gangs)
    bounds = [0]
    if devices:
        bounds += [bins([*within, *[1] * shared], devices), -(-(sum(whole) + shared) // devices)]
    if cores:
        bounds.append(-(-cores // int(max(node.cores for node in nodes) * WHOLE)))
    if memory:
        bounds.append(-(-memory // max(node.memory for node in nodes)))
    return max(bounds)


def by_kind(plan: Plan, nodes: Iterable[Node]) -> dict[str, tuple[int, int]]:
    """For each type of machine that the plan uses: nodes used, and how few could hold the same gangs."""
    named = {node.name: node for node in nodes}
    kinds: dict[str, list[Placed]] = {}
    for gang in plan.placed.values():
        kinds.setdefault(_kind(named[gang.seats[0].node]), []).append(gang)
    found = {}
    for kind, gangs in sorted(kinds.items()):
        used = {seat.node for gang in gangs for seat in gang.seats}
        found[kind] = (len(used), fewest(gangs, [node for node in named.values() if _kind(node) == kind]))
    return found


def overfull(board: Board, needs: Mapping[str, Need]) -> set[str]:
    """Models of which not all gangs can be placed: those that may stand nowhere else exceed the pools together."""
    demands: dict[frozenset[int], int] = {}
    models: dict[frozenset[int], list[str]] = {}
    capacity: dict[frozenset[int], int] = {}
    for need in needs.values():
        options = board.options(need)
        asks = [asked for _, asked in options]
        if not options or len({asked.kind == CPU for asked in asks}) > 1:
            continue
        # Cores and devices are told apart by the sign of the pools' numbers.
        sign = -1 if asks[0].kind == CPU else 1
        where = frozenset(sign * (1 + board.floor.pools.index(pool)) for pool, _ in options)
        size = min(asked.shards * (asked.parts or asked.cores) for asked in asks)
        demands[where] = demands.get(where, 0) + size * need.replicas
        models.setdefault(where, []).append(need.model)
        if where not in capacity:
            capacity[where] = sum(_size(board, place, sign) for pool, _ in options for place in pool.members)
    return {
        model
        for where, names in models.items()
        if sum(demand for other, demand in demands.items() if other <= where) > capacity[where]
        for model in names
    }


def _size(board: Board, place: int, sign: int) -> int:
    return len(board.floor.parts[place]) * WHOLE if sign > 0 else board.floor.all_cores[place]


def _kind(node: Node) -> str:
    devices = node.accelerators
    if devices is None:
        return CPU
    return f"{devices.count} x {devices.name or devices.kind} {devices.memory // 10**9} GB"
