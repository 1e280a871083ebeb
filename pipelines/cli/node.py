"""`strata node-env`: what a node of a cluster exports before `ray start`, for ray-cluster.yaml."""

import shlex
from pathlib import Path

from cluster import loopback, runtime
from pipelines.cli.config import settle


def run(file: Path | None) -> None:
    """Print shell exports; eval them."""
    cluster = settle(file).settings.cluster
    runtime.prepare(cluster)
    loopback.install(cluster.run_dir, head_seconds=cluster.head_seconds, stall_seconds=cluster.stall_seconds)
    token = {"RAY_AUTH_TOKEN_PATH": str(cluster.state / "ray.token")}  # the same on every node: file_mounts brings it
    variables = {**runtime.ALWAYS, **token, **loopback.ingress(cluster.run_dir)}
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
