"""Which fault comes next, and whom it befalls.

Knows kinds, processes by name and number, and chance as an argument. Ends nothing itself.
"""

import random
import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cluster.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to fail: a signal to a process of a role. `share`: as often it comes, beside the others."""

    name: str
    role: str
    signal: signal.Signals
    share: int = 1


SHARD, LEADER, CONTROLLER, STORE, NODE = "shard", "leader", "controller", "store", "node"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("kill-shard", SHARD, signal.SIGKILL, 3),
        Kind("freeze-shard", SHARD, signal.SIGSTOP, 2),
        Kind("kill-leader", LEADER, signal.SIGKILL, 3),
        Kind("freeze-leader", LEADER, signal.SIGSTOP, 2),
        Kind("kill-controller", CONTROLLER, signal.SIGKILL, 1),  # Serve's
        Kind("kill-store", STORE, signal.SIGKILL, 1),  # Ray's control store (GCS), where it is a local Ray's
        Kind("kill-node", NODE, signal.SIGKILL, 1),  # its raylet, which takes along what runs there
    )
}
HARMLESS = tuple(name for name in KINDS if name != "kill-node")  # nothing but an autoscaler brings back a node


@dataclass(frozen=True, slots=True)
class Gang:
    """A replica that serves: its processes, and the node that they are on."""

    model: str
    replica: str
    node: str
    leader: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A process that belongs to the stack. `node` has it; `gangs` are those that are lost with it."""

    role: str
    pid: int
    node: str
    gangs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sight:
    """What may be struck now. `gangs` serve; `others` are controllers, control stores and nodes."""

    gangs: tuple[Gang, ...] = ()
    others: tuple[Target, ...] = ()


def named(names: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds of these names. Raises InvalidRequest for one that there is not."""
    for name in names:
        if name not in KINDS:
            raise InvalidRequest("kinds", name, f"one of {', '.join(KINDS)}")
    return tuple(KINDS[name] for name in names)


def order(kinds: Sequence[Kind], count: int, seed: int) -> list[Kind]:
    """So many faults, every kind as often as its share has it (to one), in an order that `seed` gives."""
    dice = random.Random(seed)
    pack = [kind for kind in kinds for _ in range(kind.share)]
    drawn: list[Kind] = []
    while len(drawn) < count:
        drawn += dice.sample(pack, len(pack))
    return drawn[:count]


def aim(kind: Kind, sight: Sight, spare: int, roll: int) -> Target | None:
    """Whom `kind` befalls; None while it may befall nobody.

    `spare` other gangs of the same model go on: with 1 there is always somebody who takes up what is lost.
    """
    targets = _processes(kind.role, sight.gangs) if kind.role in (SHARD, LEADER) else _others(kind.role, sight)
    fit = [target for target in targets if _spared(set(target.gangs), sight.gangs, spare)]
    return fit[roll % len(fit)] if fit else None


def _processes(role: str, gangs: Sequence[Gang]) -> list[Target]:
    if role == LEADER:
        return [Target(role, gang.leader, gang.node, (gang.replica,)) for gang in gangs]
    return [Target(role, pid, gang.node, (gang.replica,)) for gang in gangs for pid in gang.shards]


def _others(role: str, sight: Sight) -> list[Target]:
    """A node is worth a fault only while a gang is on it."""
    return [target for target in sight.others if target.role == role and (role != NODE or target.gangs)]


def _spared(lost: Collection[str], gangs: Sequence[Gang], spare: int) -> bool:
    models = {gang.model for gang in gangs if gang.replica in lost}
    return all(sum(gang.model == model and gang.replica not in lost for gang in gangs) >= spare for model in models)
