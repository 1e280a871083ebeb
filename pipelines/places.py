"""Where gangs stand, which of them wait for a place and why, and which placement groups nobody owns.

Asks Ray and Serve; what to think of their answers stands in `placing`. Its caller is a driver or an actor of the
cluster already.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from actors.directory import Entry
from actors.settings import ModelSettings
from cluster.errors import PlacementImpossible
from pipelines import placing
from pipelines.standing import Standing

HOLD_SECONDS = 120  # longer than a gateway takes to be there again and look


def waiting(models: Sequence[ModelSettings]) -> list[str]:
    """Of every model whose gangs wait for a place: what one needs, what is free where, what would help."""
    import ray  # noqa: PLC0415 - not before its environment stands

    waits = placing.pending(groups())
    if not waits:
        return []
    gpus = ray.cluster_resources().get("GPU", 0)
    free = placing.machines(_open(ray.nodes()), ray._private.state.available_resources_per_node())
    counts = [(model, waits.pop(placing.deployment_name(model.name), 0)) for model in models]
    needs = [placing.need(model, placing.device_of(model, gpus), count) for model, count in counts if count]
    unknown = [
        f"{name}: {count} wait for a place; these settings do not name the model" for name, count in waits.items()
    ]
    return placing.waiting(free, needs) + unknown


def _open(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The nodes on which something new may start, as those that are drained may not."""
    import ray  # noqa: PLC0415 - not before its environment stands

    leaving = ray._private.state.state.get_draining_nodes()
    return [row for row in rows if row["NodeID"] not in leaving]


def gather(models: Sequence[ModelSettings], entries: Iterable[Entry], spare: int = 0) -> dict[str, Any]:
    """All of it as plain values, beside what the planner would do with the cluster if nothing stood on it.

    `spare`: nodes of each type that are to be kept.
    """
    import ray  # noqa: PLC0415 - not before its environment stands

    rows, gpus = ray.nodes(), ray.cluster_resources().get("GPU", 0)
    nodes = placing.machines(rows)
    names = {row["NodeID"]: node.name for row, node in zip((row for row in rows if row["Alive"]), nodes, strict=True)}
    try:
        made = placing.plan(nodes, [placing.need(model, placing.device_of(model, gpus)) for model in models], spare)
        named = {model.name: model for model in models}
        planned, notes = placing.decisions(made), placing.notes(nodes, made, named)
    except PlacementImpossible as wrong:
        planned, notes = [], [str(wrong)]
    stand = [
        {
            "model": entry.model, "replica": entry.replica, "node": names.get(entry.node, entry.node),
            **({"strata": dict(entry.registry)} if entry.registry else {}),
        }
        for entry in entries
    ]  # fmt: skip
    return {
        "gangs": sorted(stand, key=lambda gang: (gang["model"], gang["node"], gang["replica"])),
        "planned": planned,
        "notes": notes,
        "waiting": waiting(models),
        "leaked": leaked(),
    }


def leaked() -> list[str]:
    """The names of our placement groups that no replica owns; none while Serve knows of no replica whatever."""
    there = groups()
    owned = replicas()
    return placing.leaked(there, owned) if owned else []


def sweep(only: Collection[str] | None = None) -> list[str]:
    """Remove them, or `only` those of them; their names."""
    import ray  # noqa: PLC0415 - not before its environment stands
    from ray.util.placement_group import PlacementGroup, remove_placement_group  # noqa: PLC0415

    there = groups()
    owned = replicas()
    names = {name for name in placing.leaked(there, owned) if only is None or name in only} if owned else set()
    for group in there:
        if group["name"] in names:  # by its id: its name counts in Serve's namespace alone
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group["placement_group_id"]))))
    return sorted(names)


def hold() -> None:
    """Keep the packages of code that Serve makes replicas from for a while longer; called again before that is over.

    Ray counts who uses a package and deletes it with the last one; its control store has the counts in memory, so what
    it counts after it was started again is too few.
    """
    from ray.experimental import internal_kv  # noqa: PLC0415 - not before Ray's environment stands
    from ray.serve.context import _get_global_client  # noqa: PLC0415

    client = _get_global_client(raise_if_no_controller_running=False)
    for name in Standing.of(client.get_serve_details()).packages if client else ():
        internal_kv._pin_runtime_env_uri(name, expiration_s=HOLD_SECONDS)


def groups() -> list[Mapping[str, Any]]:
    """Ray's placement groups."""
    from ray.util import placement_group_table  # noqa: PLC0415 - not before Ray's environment stands

    return list(placement_group_table().values())


def replicas() -> set[tuple[str, str]]:
    """Deployment and id of every replica of ours that Serve knows, in whatever state."""
    return {(name, replica["replica_id"]) for name, each in _deployments().items() for replica in each["replicas"]}


def deployed() -> frozenset[str]:
    """The names of what the last deploy has; empty where Serve does not tell."""
    return frozenset(_deployments())


def _deployments() -> Mapping[str, Any]:
    from ray.serve.context import _get_global_client  # noqa: PLC0415 - not before Ray's environment stands

    client = _get_global_client(raise_if_no_controller_running=False)
    application = client.get_serve_details()["applications"].get(placing.APPLICATION) if client else None
    found: Mapping[str, Any] = application["deployments"] if application else {}
    return found
