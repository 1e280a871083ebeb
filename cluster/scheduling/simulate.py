"""Fleets that are not there: the planner on seeded machines and models, with nodes lost and with fleets that grow.

    python -m cluster.scheduling.simulate [--seed N] [--sizes 10 100 ...] [--picture FILE.svg]

Calls the functions that place real gangs and makes up only what they are given. Knows no Ray and no real machine.
"""

import argparse
import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster import svg
from cluster.scheduling import bounds
from cluster.scheduling.inventory import GB, Accelerators, Node
from cluster.scheduling.needs import Need
from cluster.scheduling.packing import plan
from cluster.scheduling.plan import Plan
from cluster.scheduling.replan import replan

SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)
LOSSES = 20  # nodes lost at each size, one at a time
LARGE, SMALL = Accelerators("GPU", "H100", 8, 80 * GB), Accelerators("GPU", "A100", 8, 40 * GB)
# Billions of parameters, tensor-parallel degree, share of the models. Degrees of 3 and 6 are those of heads that two
# does not divide; the rest are what people serve.
MIX = (
    (0.5, 1, 0.14), (1.5, 1, 0.10), (3, 1, 0.10), (8, 1, 0.24), (14, 1, 0.08), (24, 2, 0.08), (32, 2, 0.08),
    (70, 3, 0.03), (70, 4, 0.09), (110, 6, 0.02), (123, 8, 0.04),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What one size of fleet came to. Seconds are of this machine, one thread."""

    nodes: int
    models: int
    gangs: int
    refused: int
    plan_seconds: float
    lost_seconds_median: float
    lost_seconds_most: float
    moved_elsewhere: int
    refused_after_loss: int
    used: int
    bound: int

    @property
    def over(self) -> float:
        """Nodes used beyond the bound, as a share of it."""
        return self.used / self.bound - 1 if self.bound else 0.0


def fleet(count: int) -> tuple[Node, ...]:
    """Machines of eight GPUs in four zones, seven of ten with the large ones."""
    return tuple(
        Node(f"n{number:05}", 128, 1024 * GB, LARGE if number % 10 < 7 else SMALL, f"zone-{'abcd'[number % 4]}")
        for number in range(count)
    )


def models(count: int, seed: int) -> tuple[Need, ...]:
    """Models as people serve them, small ones more often, one to three replicas; some would do with eight bits."""
    chance = random.Random(seed)
    return tuple(_model(f"m{number:05}", chance) for number in range(count))


def _model(name: str, chance: random.Random) -> Need:
    billions, degree, _ = chance.choices(MIX, [share for _, _, share in MIX])[0]
    size = int(billions * 2 * GB)
    return Need(
        name,
        {"bfloat16": size, "int8": size // 2},
        "bfloat16",
        kv_bytes=int(size * chance.uniform(0.1, 0.4)),
        degree=degree,
        replicas=chance.choices((1, 2, 3), (0.4, 0.4, 0.2))[0],
        shares=degree == 1 and billions < 8,
        workspace=GB,
        cores=1 if degree == 1 and billions < 8 else 2,
        host_bytes=4 * GB,
        spread=chance.choice(("zone", "node")),
    )


def measure(count: int, seed: int, spare: int = 1) -> Row:
    """Plan a fleet of `count` nodes and two models a node from nothing, then lose single nodes of it."""
    nodes, needs = fleet(count), models(2 * count, seed)
    began = time.perf_counter()
    whole = plan(nodes, needs, spare)
    seconds = time.perf_counter() - began
    kinds = bounds.by_kind(whole, nodes)
    losses = list(lose(whole, nodes, needs, spare, seed))
    return Row(
        count,
        len(needs),
        len(whole.placed),
        sum(refused.replicas for refused in whole.refused),
        seconds,
        statistics.median(each for each, _, _ in losses),
        max(each for each, _, _ in losses),
        sum(moved for _, moved, _ in losses),
        sum(refused for _, _, refused in losses),
        sum(used for used, _ in kinds.values()),
        sum(bound for _, bound in kinds.values()),
    )


def lose(
    whole: Plan, nodes: Sequence[Node], needs: Sequence[Need], spare: int, seed: int
) -> Iterator[tuple[float, int, int]]:
    """For single lost nodes: seconds, gangs moved that did not stand on it, and gangs refused that were not."""
    refused_before = sum(refused.replicas for refused in whole.refused)
    for name in random.Random(seed).sample(sorted(whole.used), min(LOSSES, len(whole.used))):
        left = [node for node in nodes if node.name != name]
        began = time.perf_counter()
        after = replan(whole, left, needs, spare)
        seconds = time.perf_counter() - began
        there = {key for key, gang in whole.placed.items() if any(seat.node == name for seat in gang.seats)}
        moved = sum(after.placed.get(key) != gang for key, gang in whole.placed.items() if key not in there)
        yield seconds, moved, max(sum(refused.replicas for refused in after.refused) - refused_before, 0)


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    names = ("nodes", "models", "gangs", "refused", "plan s", "lost ms", "most ms", "used", "bound", "over")
    lines = ["".join(f"{name:>9}" for name in names)]
    for row in rows:
        counts = (row.nodes, row.models, row.gangs, row.refused)
        seconds = f"{row.plan_seconds:9.3f}{row.lost_seconds_median * 1e3:9.2f}{row.lost_seconds_most * 1e3:9.2f}"
        lines.append("".join(f"{count:9}" for count in counts) + f"{seconds}{row.used:9}{row.bound:9}{row.over:9.1%}")
    return "\n".join(lines)


def result(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """The rows as a value that is kept."""
    return {
        "seed": seed,
        "bound": "for each type of machine, given the gangs it got: Martello and Toth's L2 on devices, or cores or "
        "memory by volume if that is more",
        "rows": [{**asdict(row), "over_bound": row.over} for row in rows],
    }


def picture(rows: Sequence[Row]) -> str:
    """Seconds and nodes over the bound against the size of the fleet, both axes of the seconds logarithmic."""
    seconds = {
        "plan from nothing": [(row.nodes, row.plan_seconds) for row in rows],
        "one node lost": [(row.nodes, row.lost_seconds_median) for row in rows],
    }
    drawn = _curves(seconds, 70, "seconds", 1e-4, 1e2)
    over = {"nodes used over the bound": [(row.nodes, max(row.over, 1e-4)) for row in rows]}
    return svg.page(
        900, 380, "Placement: fleets of 8-GPU nodes, two models a node", drawn + _curves(over, 520, "share", 1e-4, 1)
    )


def _curves(curves: dict[str, list[tuple[int, float]]], left: int, unit: str, low: float, high: float) -> str:
    """A chart with logarithmic axes, fleets of 10 to 10,000 nodes to the right."""
    width, top, height = 340, 60, 260
    drawn = [svg.text(left, top - 12, unit)]

    def across(nodes: float) -> float:
        return left + width * (math.log10(nodes) - 1) / 3

    def up(value: float) -> float:
        return top + height * (1 - math.log10(value / low) / math.log10(high / low))

    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        drawn.append(f'<path d="M{left} {up(10**power):.1f}h{width}" stroke="#ddd"/>')
        drawn.append(svg.text(left - 6, up(10**power) + 4, f"{10**power:g}", "end", 11))
    for power in range(1, 5):
        drawn.append(svg.text(across(10**power), top + height + 18, f"{10**power:,} nodes", "middle", 11))
    for number, (name, points) in enumerate(curves.items()):
        color = ("#2563eb", "#c2410c")[number]
        path = " ".join(f"{across(nodes):.1f},{up(value):.1f}" for nodes, value in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        nodes, value = points[-1]
        drawn.append(
            svg.text(across(nodes), up(value) + (38 if number else 18 if value < points[0][1] else -8), name, "end")
        )
    return "".join(drawn)


def main() -> None:
    """Print the table; draw it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    rows = [measure(size, options.seed) for size in options.sizes]
    print(table(rows))
    if options.picture:
        options.picture.write_text(picture(rows))


if __name__ == "__main__":
    main()
