"""What a shell exports: `strata node-env` before `ray start` on a node, `strata env` for Ray's own commands."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from cluster import folders, loopback, runtime
from cluster.errors import Unavailable
from pipelines.cli import show
from pipelines.cli.config import settle


def run(file: Path | None) -> None:
    """Print what a node needs; eval it."""
    cluster = settle(file).settings.cluster
    folders.prepare(cluster)
    loopback.install(cluster.run_dir, head_seconds=cluster.head_seconds, stall_seconds=cluster.stall_seconds)
    token = {"RAY_AUTH_TOKEN_PATH": str(cluster.state / "ray.token")}  # the same on every node: file_mounts brings it
    export({"PATH": runtime.search_path(), **runtime.ALWAYS, **token, **loopback.ingress(cluster.run_dir)})


def shell(file: Path | None, *, as_json: bool) -> None:
    """Print what Ray's own commands need to find the local cluster and to be let in. Raises Unavailable."""
    cluster = settle(file).settings.cluster
    running = runtime.find(cluster)
    if cluster.address == "local" and running is None:
        raise Unavailable("the local cluster", "it is not up; run `strata up --detach` first")
    where = {}
    if running and running.dashboard and "://" not in running.dashboard:
        where = {"RAY_API_SERVER_ADDRESS": f"http://{running.dashboard}"}
    variables = {"PATH": runtime.search_path(), **runtime.environment(cluster), **where}
    if as_json:
        show.document(variables)
    else:
        export(variables)


def export(variables: Mapping[str, str]) -> None:
    """As a shell reads it."""
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
