"""Where gangs shall stand, from settings and the cluster's machines to what Serve can be told; and why one waits.

The plan says whether all gangs can stand, and explains; Ray places. Serve takes one label selector for all gangs of a
deployment, for as long as it runs: so it is told what stays true when a machine is lost (labels, types of
accelerators), never a machine's name, which a gang would wait for after the machine is gone.

Knows settings and the planner. Asks no cluster.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.settings import ModelSettings
from cluster.errors import PlacementImpossible
from cluster.scheduling import explain, inventory, packing
from cluster.scheduling.inventory import ACCELERATORS, CPU, TYPE, Node
from cluster.scheduling.needs import Need
from cluster.scheduling.plan import Plan

APPLICATION, GATEWAY = "strata", "gateway"  # as Serve knows them
_OURS = f"SERVE_REPLICA::{APPLICATION}#"  # so Serve calls a replica's placement group, then DEPLOYMENT#ID
_ITEM_BYTES = {"float32": 4, "float64": 8}  # of a config's dtype; any other that models are stored as has 2


def machines(rows: Iterable[Mapping[str, Any]], free: Mapping[str, Mapping[str, float]] | None = None) -> list[Node]:
    """The living nodes of `ray.nodes()`, by their addresses; with `free`, by Ray's id of each, only what that says."""
    alive = [row for row in rows if row["Alive"]]
    shared = Counter(row["NodeManagerAddress"] for row in alive)
    found = []
    for row, node in zip(alive, inventory.of_ray(alive), strict=True):
        address = row["NodeManagerAddress"]
        named = replace(node, name=address if shared[address] == 1 else f"{address}#{row['NodeID'][:6]}")
        found.append(named if free is None else _left(named, free.get(row["NodeID"], {})))
    return found


def _left(node: Node, free: Mapping[str, float]) -> Node:
    devices = node.accelerators
    if devices is not None:
        devices = replace(devices, count=int(free.get(devices.kind, 0)))
    return replace(node, cores=free.get(CPU, 0), accelerators=devices)


def need(model: ModelSettings, device: str, gangs: int | None = None) -> Need:
    """What the planner has to know of a model, of `gangs` of it; its first ones by default.

    Memory counts where a GPU's is known. A host's does not: what of its files a gang maps, Ray cannot tell.
    """
    kind = CPU if device == "cpu" else ACCELERATORS[0]
    weights = {"": 0} if kind == CPU else sizes(model)
    return Need(
        model.name,
        weights,
        model.quantization if model.quantization in weights else "",
        degree=model.tensor_parallel_size,
        replicas=model.first_replicas if gangs is None else gangs,
        spares=model.spares,
        kinds=(kind,),
        accelerators=model.placement.accelerators if kind != CPU else (),
        labels=model.placement.labels,
        cores=float(model.shard_cpus),
    )


def sizes(model: ModelSettings) -> dict[str, int]:
    """Bytes of its weights as the folder has them (""), and about so many when rounded; 0 where it is not here."""
    if not model.path:  # a version that is not settled yet
        return {"": 0}
    folder, each = Path(model.path), 2
    with suppress(OSError, ValueError, AttributeError):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config.get("quantization_config"):
            return {"": sum(file.stat().st_size for file in folder.glob("*.safetensors"))}
        each = _ITEM_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), each)
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    eighth = "fp8" if model.quantization == "fp8" else "int8"
    return {"": stored, eighth: stored // each, "int4": stored // each // 2}


def plan(nodes: Sequence[Node], needs: Sequence[Need], spare: int = 0) -> Plan:
    """Where all gangs could stand if nothing else did, on other nodes than `spare` of each type as far as that goes.

    Raises PlacementImpossible where one never can.
    """
    made = packing.plan(nodes, needs, spare)
    for refused in made.refused:
        if refused.proven:
            gangs = f"room for {refused.replicas} more gangs, each of " if refused.replicas > 1 else ""
            raise PlacementImpossible(refused.model, gangs + refused.needs, refused.there, _either(refused.remedies))
    return made


def notes(nodes: Sequence[Node], made: Plan, models: Mapping[str, ModelSettings]) -> list[str]:
    """What whoever deploys should know of a plan: what found no place or leaves no spare node, what could not grow as
    far as it may.
    """
    said = [*map(str, made.refused), *made.notes]
    for name, wanted in made.needs.items():
        scaling = models[name].scaling
        if scaling is None or scaling.max <= wanted.replicas:
            continue
        others = [other for other in made.needs.values() if other.model != name]
        grown = packing.plan(nodes, [*others, replace(wanted, replicas=scaling.max, priority=-1)])
        for refused in grown.refused:
            if refused.model == name:
                room = scaling.max - refused.replicas
                more = f"set scaling.max: {max(1, room)} or {refused.remedies[-1]}"  # the last is more nodes
                said.append(f"{name}: of {scaling.max} gangs at most {room} have room; {more}")
    return said


def decisions(made: Plan) -> list[str]:
    """Why each gang would stand where it does."""
    return [explain.decision(gang) for gangs in made.by_model.values() for gang in gangs]


def selector(model: ModelSettings, device: str) -> dict[str, str]:
    """The labels of nodes that may hold its gangs, in Ray's words; empty: any."""
    wanted = dict(model.placement.labels)
    types = model.placement.accelerators
    if types and device != "cpu":
        wanted[TYPE] = types[0] if len(types) == 1 else f"in({', '.join(types)})"
    return wanted


def waiting(nodes: Sequence[Node], needs: Iterable[Need]) -> list[str]:
    """Of gangs that wait, `replicas` of each need: what is free on `nodes`, and what would let them stand."""
    said = []
    for wanted in needs:
        gangs = "1 gang waits" if wanted.replicas == 1 else f"{wanted.replicas} gangs wait"
        refused = packing.plan(nodes, [wanted]).refused
        if not refused:
            said.append(f"{wanted.model}: {gangs} and has room by now: Ray places it within seconds")
        for each in refused:
            why = f"each needs {each.needs}; there is {each.there}; {_either(each.remedies)}"
            said.append(f"{wanted.model}: {gangs} for a place: {why}, or wait until something ends")
    return said


def pending(groups: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many gangs of each deployment wait for a place, from Ray's table of placement groups."""
    waits = [group["name"] for group in groups if group["state"] in ("PENDING", "RESCHEDULING")]
    return Counter(name.removeprefix(_OURS).partition("#")[0] for name in waits if name.startswith(_OURS))


def leaked(groups: Iterable[Mapping[str, Any]], replicas: Collection[tuple[str, str]]) -> list[str]:
    """Names of placement groups of ours that no replica owns.

    `replicas`: deployment and id of all that Serve knows, in whatever state, asked for after the groups.
    """
    owned = {f"{_OURS}{deployment}#{replica}" for deployment, replica in replicas}
    ours = (group["name"] for group in groups if group["state"] != "REMOVED" and group["name"].startswith(_OURS))
    return sorted(name for name in ours if name not in owned)


def deployment_name(model: str) -> str:
    """A model's deployment as Serve's status shows it: Serve takes no slash."""
    return "model-" + model.replace("/", "--")


def device_of(model: ModelSettings, gpus: float) -> str:
    """What its shards compute on, "cpu" or "cuda": as the settings say, or what a cluster with so many GPUs allows."""
    if model.device != "auto":
        return model.device
    return "cuda" if gpus >= model.tensor_parallel_size else "cpu"


def _either(remedies: Sequence[str]) -> str:
    return " or ".join(remedies)
