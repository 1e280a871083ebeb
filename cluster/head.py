"""The process that holds a local Ray: `python -m cluster.head`, started by `cluster.runtime` in a session of its own.

Reads its settings as JSON from standard input, with what the next driver's workers shall have imported ahead; starts
Ray, writes where it is to the state folder and waits to be told to stop; a control store that dies meanwhile is started
again over what it had written. When the head dies, however it dies, Ray's reaper ends what it started.
"""

import json
import os
import signal
import sys
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
from cluster.registration import patient
from cluster.settings import ClusterSettings

STORE = PROCESS_TYPE_GCS_SERVER
LOOK_SECONDS = 0.25  # how often the control store is looked at
PACKAGES = "gcs://_ray_pkg_"  # what names of packages begin with
FOR_EVER_SECONDS = 10 * 365 * 24 * 3600
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
            "note": note,
        },
    )
    forks = None
    if words:
        raylet = ray._private.worker._global_node.all_processes[PROCESS_TYPE_RAYLET][0].process
        forks = forking.ahead(words, raylet.pid, following(ray.get_runtime_context().get_job_id()))
    forgotten = False
    while signal.sigtimedwait(stops, LOOK_SECONDS) is None:
        if forks is not None:
            forks.poll()  # buries it, should it have nothing to do any more
        forgotten = revive(ray._private.worker._global_node) or forgotten
        forgotten = forgotten and not keep_packages(internal_kv)
    ray.shutdown()


def following(job: str) -> str:
    """The id of the job that Ray makes after this one: a number of four bytes, the lowest first."""
    return (int.from_bytes(bytes.fromhex(job), "little") + 1).to_bytes(4, "little").hex()


def revive(node: Any) -> bool:
    """Start the control store of a head `node` again if it has ended: on its port, over its files. Whether it had.

    Whoever speaks with it connects again by itself, within a minute (Ray's gcs_rpc_server_reconnect_timeout_s).
    """
    if all(info.process.poll() is None for info in node.all_processes[STORE]):
        return False
    node.kill_gcs_server(check_alive=False)
    node.start_gcs_server()
    return True


def keep_packages(store: Any) -> bool:
    """Hold on to the code that jobs brought along: whether that could be done.

    A control store that was started again knows no more which actors use it, and would delete it with the first one
    that ends: no gang could start on a new node after that. `store` is `ray.experimental.internal_kv`.
    """
    try:
        for uri in store._internal_kv_list(PACKAGES):
            store._pin_runtime_env_uri(uri.decode(), expiration_s=FOR_EVER_SECONDS)
    except ray.exceptions.RayError:  # it is not up yet
        return False
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
