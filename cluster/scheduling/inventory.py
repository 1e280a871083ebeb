"""What the machines of a fleet are: accelerators, cores, memory, zone, interconnect domain, labels.

Knows values, and how Ray's list of nodes says them. Knows nothing of what is free, of models or of where things go.
A machine has accelerators of one type at most: Ray's resources do not tell two types on one machine apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CPU = "CPU"
ACCELERATORS = ("GPU", "NPU", "TPU")  # as Ray names these resources
GB = 10**9

NODE = "ray.io/node-id"
ZONE = "ray.io/availability-zone"
TYPE = "ray.io/accelerator-type"
DOMAINS = ("ray.io/gpu-domain", "ray.io/tpu-slice-name")  # nodes that share a fast interconnect
MEMORY = "strata/accelerator-memory-gb"  # a label that says what the table below does not know

# Gigabytes of one accelerator by Ray's name of its type, from the makers' data sheets, the smallest that is sold.
SIZES = {
    "V100": 16, "P100": 12, "T4": 16, "P4": 8, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40, "H100": 80, "H200": 141,
    "H20": 96, "B200": 180, "B300": 288, "GB200": 186, "GB300": 288, "AMD-Instinct-MI300X-OAM": 192,
    "AMD-Instinct-MI325X-OAM": 256, "AMD-Instinct-MI250X": 128, "Intel-GAUDI": 96, "Ascend910B": 64,
    "TPU-V4": 32, "TPU-V5P": 95, "TPU-V5LITEPOD": 16, "TPU-V6E": 32,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Accelerators:
    """Like devices of one machine. `memory` is bytes of each; 0 where nobody knows: then any shard is let on it."""

    kind: str
    name: str
    count: int
    memory: int


@dataclass(frozen=True, slots=True)
class Node:
    """One machine. `memory` is bytes of the host; an empty `domain` means that nothing fast leads out of it."""

    name: str
    cores: float
    memory: int
    accelerators: Accelerators | None = None
    zone: str = ""
    domain: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def of_ray(rows: Iterable[Mapping[str, Any]]) -> tuple[Node, ...]:
    """The living nodes of `ray.nodes()`, by Ray's id of each."""
    return tuple(_of_row(row) for row in rows if row["Alive"])


def _of_row(row: Mapping[str, Any]) -> Node:
    resources, labels = row["Resources"], dict(row.get("Labels") or {})
    return Node(
        row["NodeID"],
        float(resources.get(CPU, 0)),
        int(resources.get("memory", 0)),
        _accelerators(resources, labels),
        labels.get(ZONE, ""),
        next((labels[key] for key in DOMAINS if labels.get(key)), ""),
        labels,
    )


def _accelerators(resources: Mapping[str, float], labels: Mapping[str, str]) -> Accelerators | None:
    kind = next((kind for kind in ACCELERATORS if resources.get(kind, 0) >= 1), None)
    if kind is None:
        return None
    marked = (name.partition(":")[2] for name in resources if name.startswith("accelerator_type:"))
    name = labels.get(TYPE) or next(marked, "")
    try:
        gigabytes = float(labels[MEMORY])
    except (KeyError, ValueError):
        gigabytes = SIZES.get(name, 0)
    return Accelerators(kind, name, int(resources[kind]), int(gigabytes * GB))
