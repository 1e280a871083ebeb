"""A client of the gateway for a command: of the one that the settings or `--url` name, with the key of this person."""

from pathlib import Path

from pipelines.cli.config import settle
from pipelines.cli.keys import mine
from pipelines.driver import Client, connect


def gateway(file: Path | None, url: str | None) -> Client:
    """Who is asked. Raises as `settle` and `connect` do."""
    cluster = settle(file).settings.cluster
    return connect(url or cluster.url, mine(cluster))
