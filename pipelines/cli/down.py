"""`strata down`: let running answers end, then end every process that belongs to this state folder."""

from contextlib import suppress
from pathlib import Path

from actors import meeting
from cluster import runtime
from cluster.errors import SettingsInvalid
from cluster.settings import ClusterSettings
from pipelines.cli import serving, show
from pipelines.cli.config import settle


def run(file: Path | None, *, as_json: bool) -> None:
    """Stop what `up` started."""
    cluster = settle(file).settings.cluster
    if cluster.address != "local":
        raise SettingsInvalid("cluster.address", cluster.address, "`down` stops a local Ray; for a cluster, `ray down`")
    ended = everything(cluster)
    if as_json:
        show.document({"ended_processes": ended})
    else:
        show.line(f"Stopped; {ended} processes ended" if ended else "Nothing was running")


def everything(cluster: ClusterSettings) -> int:
    """Drain, then end the cluster; the number of processes that were there. A second Ctrl-C skips the draining."""
    running = runtime.find(cluster)
    # A cluster that no longer answers cannot drain, whatever it is that it fails with: it is ended all the same.
    with suppress(Exception, KeyboardInterrupt):
        if running:
            runtime.connect(cluster, running)
            serving.withdraw()
    with suppress(KeyboardInterrupt):
        runtime.disconnect()
    ended = runtime.stop(cluster)
    meeting.sweep()  # a gang that was killed while it started has left its folder
    return ended
