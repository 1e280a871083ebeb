"""What a model needs of the machines that hold it, and what one shard of it takes of a given type of machine.

Knows bytes, degrees and wishes. Knows nothing of what is free.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cluster.scheduling.inventory import CPU, Accelerators

WHOLE = 10_000  # parts of one device or core: Ray counts resources in ten-thousandths

Spread = Literal["zone", "node", "none"]


@dataclass(frozen=True, slots=True)
class Need:
    """One model and how many gangs of it there shall be.

    `weights` holds the model's bytes by precision and `kv_bytes` those of one replica's cache: both are cut into
    `degree` shards. `workspace`, `cores` and `host_bytes` are of each shard. `kinds` stands in order of preference, and
    `accelerators` are the only types that will do, all if empty. With `shares`, a gang of one may share its device.
    Of higher `priority` is placed first. So many of the `replicas` are `spares`, as the settings name them.
    """

    model: str
    weights: Mapping[str, int]
    precision: str
    kv_bytes: int = 0
    degree: int = 1
    replicas: int = 1
    kinds: tuple[str, ...] = ("GPU",)
    accelerators: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    spread: Spread = "zone"
    shares: bool = False
    workspace: int = 0
    cores: float = 1.0
    host_bytes: int = 0
    priority: int = 0
    spares: int = 0

    @property
    def shard_bytes(self) -> int:
        """Bytes that one shard has on its device; on CPU, in the host's memory."""
        return -(-(self.weights[self.precision] + self.kv_bytes) // self.degree) + self.workspace


@dataclass(frozen=True, slots=True)
class Ask:
    """A gang on one kind of machine: its shards, and what each takes. `parts` of a device, 0 where the kind is CPU."""

    kind: str
    shards: int
    parts: int
    cores: int
    memory: int

    @property
    def shared(self) -> bool:
        """Whether its one device may hold others too."""
        return 0 < self.parts < WHOLE


def ask(need: Need, kind: str, devices: Accelerators | None) -> Ask | None:
    """What a gang asks of machines with these devices if it uses `kind`; None if it can never use them."""
    cores = math.ceil(need.cores * WHOLE - 1e-6)
    if kind == CPU:
        return Ask(CPU, need.degree, 0, max(cores, 1), need.host_bytes + need.shard_bytes)
    if devices is None or devices.kind != kind or (need.accelerators and devices.name not in need.accelerators):
        return None
    if devices.memory and need.shard_bytes > devices.memory:
        return None
    parts = WHOLE
    if need.shares and need.degree == 1 and devices.memory:
        parts = max(1, -(-need.shard_bytes * WHOLE // devices.memory))
    return Ask(kind, need.degree, parts, cores, need.host_bytes)
