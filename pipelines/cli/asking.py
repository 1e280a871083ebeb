"""A client of the gateway for a command: of the one that the settings or `--url` name, with the key of this person."""

from pathlib import Path

from cluster import hardware, runtime
from cluster.errors import Unavailable
from cluster.settings import ClusterSettings
from pipelines.cli.config import settle
from pipelines.cli.keys import mine
from pipelines.driver import Client, connect

STOPPED = "Nothing is running. Start with: strata up"


def gateway(file: Path | None, url: str | None) -> Client:
    """Who is asked. Raises as `settle` and `mine`, and Unavailable where it is ours and nothing runs."""
    cluster = settle(file).settings.cluster
    if url is None and stopped(cluster):
        raise Unavailable(f"the gateway at {cluster.url}", STOPPED)
    return connect(url or cluster.url, mine(cluster))


def stopped(cluster: ClusterSettings) -> bool:
    """Whether a cluster that `up` starts on this machine does not run, and nothing else answers in its place."""
    return (
        cluster.address == "local"
        and runtime.find(cluster) is None
        and hardware.port_is_free(cluster.host, cluster.http_port)
    )
