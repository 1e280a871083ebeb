"""`strata status`: the cluster, the models and their replicas, and whether they answer."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from cluster import runtime
from pipelines import places
from pipelines.cli import serving, show
from pipelines.cli.asking import STOPPED
from pipelines.cli.config import settle
from pipelines.cli.reasons import sentence
from pipelines.settings import Settings

NAMED = 4  # nodes of a model that are named
OLD_SECONDS = 10.0  # decisions come every second; one that is older tells that the controller is away


def run(file: Path | None, *, as_json: bool) -> None:
    """Show what runs; exit status 1 if nothing is served."""
    settings = settle(file).settings
    facts = gather(settings)
    if as_json:
        show.document(facts)
    else:
        draw(facts)
    if facts["status"] != "running":
        raise SystemExit(1)


def gather(settings: Settings) -> dict[str, Any]:
    """What runs, as plain values."""
    local = settings.cluster.address == "local"
    running = runtime.find(settings.cluster)
    if local and running is None:
        return {"status": "stopped", "url": None, "deployments": {}}
    runtime.join(settings.cluster)
    import ray  # noqa: PLC0415 - not before its environment stands

    facts = {
        "status": "running",
        "url": running.url if running else settings.cluster.url,
        "ray": running.address if running else settings.cluster.address,
        "dashboard": running.dashboard if running else "",
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "resources": {key: value for key, value in ray.cluster_resources().items() if key in ("CPU", "GPU", "memory")},
        "free": {key: value for key, value in ray.available_resources().items() if key in ("CPU", "GPU", "memory")},
        "deployments": serving.states(),
        "scaling": serving.scaling(),
        "placement": places.gather(settings.models, serving.gangs(), settings.cluster.spare_nodes),
        "logs": serving.logs(settings),
    }
    runtime.disconnect()
    return facts if facts["deployments"] else {**facts, "status": "empty"}


def draw(facts: dict[str, Any]) -> None:
    """The same for a person."""
    if facts["status"] == "stopped":
        show.line(STOPPED)
        return
    cores = f"{facts['free'].get('CPU', 0):g} of {facts['resources'].get('CPU', 0):g} cores free"
    nodes = "1 node" if facts["nodes"] == 1 else f"{facts['nodes']} nodes"
    if facts["status"] == "empty":
        show.line(f"Ray runs at {facts['ray']} ({nodes}, {cores}) and nothing is deployed on it.")
        show.line("Deploy with: strata deploy -f strata.yaml. End Ray with: strata down")
        return
    show.line(f"[bold green]running[/] at {facts['url']}  Ray {facts['ray']}, {nodes}, {cores}")
    found = facts["deployments"]
    rows = [(name, one["status"], counted(one["replicas"])) for name, one in found.items()]
    show.table(("deployment", "status", "replicas"), rows)
    for line in stands(facts["placement"]["gangs"]):
        show.line(escape(line))
    for model, decided in facts["scaling"].items():
        show.line(f"{escape(model)}: {wanted(decided)}")
    for line in (*facts["placement"]["waiting"], *facts["placement"]["notes"]):
        show.line(f"[yellow]{escape(line)}[/]")
    if leaked := facts["placement"]["leaked"]:
        groups = f"{len(leaked)} placement groups hold room that no gang uses; `strata deploy` removes them"
        show.line(f"[yellow]{groups}[/]")
    said = {name: sentence(one["message"]) for name, one in found.items() if one["message"]}
    for name, text in said.items():
        show.line(f"[yellow]{name}[/]: {escape(text)}")
    if said:
        show.line(f"[dim]All that Serve says: strata status --json. Logs: {facts['logs']}[/]")


def stands(gangs: Iterable[Mapping[str, Any]]) -> list[str]:
    """On which nodes the gangs of each model stand."""
    models: dict[str, Counter[str]] = {}
    versions: dict[str, str] = {}
    for gang in gangs:
        models.setdefault(gang["model"], Counter())[gang["node"]] += 1
        if version := gang.get("strata"):
            versions[gang["model"]] = f" of {version['registry']}, {version['version']} ({version['digest'][:12]})"
    told = []
    for model, nodes in models.items():
        few = [f"{count} on {node}" for node, count in nodes.most_common(NAMED)]
        rest = sum(nodes.values()) - sum(count for _, count in nodes.most_common(NAMED))
        more = [f"{rest} on {len(nodes) - NAMED} more nodes"] if rest else []
        told.append(f"{model}: gangs {', '.join(few + more)}{versions.get(model, '')}")
    return told


def wanted(decided: Mapping[str, Any]) -> str:
    """What was decided of a model that scales, and why."""
    gangs = "1 gang" if decided["wanted"] == 1 else f"{decided['wanted']} gangs"
    old = f", decided {decided['seconds_ago']:.0f} s ago" if decided["seconds_ago"] > OLD_SECONDS else ""
    return f"{gangs} wanted, of {decided['min']} to {decided['max']}{old}: {decided['reason']}"


def counted(replicas: Mapping[str, int]) -> str:
    """How many replicas are in which state."""
    return ", ".join(f"{count} {state}" for state, count in replicas.items())
