"""`strata status`: the cluster, the models and their replicas, and whether they answer."""

from pathlib import Path
from typing import Any

from cluster import runtime
from pipelines.cli import serving, show
from pipelines.cli.config import settle
from pipelines.settings import Settings


def run(file: Path | None, *, as_json: bool) -> None:
    """Show what runs; exit status 1 if nothing does."""
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
    }
    runtime.disconnect()
    return facts


def draw(facts: dict[str, Any]) -> None:
    """The same for a person."""
    if facts["status"] == "stopped":
        show.line("Nothing is running. Start with: strata up")
        return
    cores = f"{facts['free'].get('CPU', 0):g} of {facts['resources'].get('CPU', 0):g} cores free"
    nodes = "1 node" if facts["nodes"] == 1 else f"{facts['nodes']} nodes"
    show.line(f"[bold green]running[/] at {facts['url']}  Ray {facts['ray']}, {nodes}, {cores}")
    rows = [
        (
            name,
            found["status"],
            ", ".join(f"{count} {state}" for state, count in found["replicas"].items()),
            found["message"],
        )
        for name, found in facts["deployments"].items()
    ]
    columns = ("deployment", "status", "replicas", "message")
    shown = len(columns) - (not any(row[-1] for row in rows))  # messages that say nothing are no column
    show.table(columns[:shown], [row[:shown] for row in rows])
