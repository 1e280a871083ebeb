"""The process that holds a local Ray: `python -m cluster.head`, started by `cluster.runtime` in a session of its own.

Reads its settings as JSON from standard input, with what the next driver's workers shall have imported ahead; starts
Ray, writes where it is to the state folder and waits to be told to stop; a control store that dies meanwhile is started
again over what it had written. When the head dies, however it dies, Ray's reaper ends what it started.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import ray
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET
from ray._private.services import get_node
from ray._private.utils import get_num_cpus, write_ray_address
from ray.experimental import internal_kv

from cluster import forking
from cluster.packages import Packages
from cluster.registration import patient
from cluster.settings import ClusterSettings

STORE = PROCESS_TYPE_GCS_SERVER
LOOK_SECONDS = 0.25  # how often the control store is looked at
LEAST_CORES = 2  # what the starter's gang of two asks for; on one core its shards take turns


def main() -> None:
    """Hold a Ray cluster until SIGTERM."""
    # Blocked before Ray starts threads and processes: this process alone takes them, by waiting.
    stops = {signal.SIGTERM, signal.SIGINT}
    told, *words = json.load(sys.stdin)
    settings = ClusterSettings.model_validate(told)
    # `ray.init` has no argument for these; the job agent's port 52365 is taken where another Ray runs on the machine.
    RayParams.__init__ = partialmethod(
        RayParams.__init__, dashboard_agent_listen_port=0, setup_worker_path=forking.SETUP
    )
    Node.start_ray_processes = patient(Node.start_ray_processes, get_node)
    cores, note = cores_of(settings.num_cpus, get_num_cpus())
    started = ray.init(
        address="local",
        _temp_dir=str(settings.run_dir / "ray"),
        num_cpus=cores,
        num_gpus=settings.num_gpus,
        object_store_memory=settings.object_store_megabytes * 2**20,
        include_dashboard=settings.dashboard,
        dashboard_host="127.0.0.1",
        dashboard_port=settings.dashboard_port,
        log_to_driver=False,
        configure_logging=False,
        namespace="strata",
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    address = ray.get_runtime_context().gcs_address
    # Where a job's driver looks first; without it Ray picks any cluster on the machine (ray/_private/services.py).
    write_ray_address(address, str(settings.run_dir / "ray"))
    announce(
        settings.state / "runtime.json",
        {
            "address": address,
            "pid": os.getpid(),
            "dashboard": started.dashboard_url or "",
            "url": settings.url,
            "host": settings.host,
            "settings": settings.at_start,
            "note": note,
        },
    )
    forks = None
    if words:
        raylet = ray._private.worker._global_node.all_processes[PROCESS_TYPE_RAYLET][0].process
        forks = forking.ahead(words, raylet.pid, following(ray.get_runtime_context().get_job_id()))
    packages, ended = Packages(internal_kv, settings.run_dir / "packages"), threading.Event()
    # in a thread, as whoever asks a dead control store waits, and this one has to start another
    threading.Thread(target=packages.keep, args=(ended, LOOK_SECONDS), name="packages", daemon=True).start()
    while signal.sigtimedwait(stops, LOOK_SECONDS) is None:
        if forks is not None:
            forks.poll()  # buries it, should it have nothing to do any more
        revive(ray._private.worker._global_node, packages.died)
    ended.set()
    ray.shutdown()


def following(job: str) -> str:
    """The id of the job that Ray makes after this one: a number of four bytes, the lowest first."""
    return (int.from_bytes(bytes.fromhex(job), "little") + 1).to_bytes(4, "little").hex()


def revive(node: Any, died: Callable[[], None]) -> bool:
    """Start the control store of a head `node` again if it has ended: on its port, over its files. Whether it had.

    Whoever speaks with it connects again by itself, within a minute (Ray's gcs_rpc_server_reconnect_timeout_s).
    `died` is called in between.
    """
    if all(info.process.poll() is None for info in node.all_processes[STORE]):
        return False
    node.kill_gcs_server(check_alive=False)
    died()
    node.start_gcs_server()
    return True


def cores_of(wanted: int | None, there: int) -> tuple[int, str]:
    """How many cores Ray may hand out on a machine that has `there`, and what to say about it."""
    if wanted or there >= LEAST_CORES:
        return wanted or there, ""
    return LEAST_CORES, f"{there} core counts as {LEAST_CORES}: the shards of a gang take turns on it, which is slow"


def announce(path: Path, facts: dict[str, object]) -> None:
    """Replace the file at `path` whole: a reader sees all or nothing."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(facts))
    scratch.chmod(0o600)
    scratch.replace(path)


if __name__ == "__main__":
    main()
