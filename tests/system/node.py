"""One more node of a Ray cluster on this machine, until SIGTERM: `python -m tests.system.node ADDRESS NAME CPUS DIR`.

`ray start` refuses a second node on loopback; this is what ray.cluster_utils does for its simulated nodes. It is there
when its machine had the time for that: see cluster/registration.py. It has a DIR of its own, as a machine would: an
agent of Ray that needs a working directory for the first time removes what another has unpacked there for its jobs.
"""

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._private.services import get_node

from cluster.forking import SETUP
from cluster.registration import agent_ports, patient


def main(address: str, name: str, cpus: str, folder: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parameters = RayParams(
        gcs_address=address,
        temp_dir=folder,
        node_ip_address="127.0.0.1",
        num_cpus=int(cpus),
        num_gpus=0,
        resources={name: 1},
        object_store_memory=100 << 20,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        include_log_monitor=False,
        setup_worker_path=SETUP,
        **agent_ports(),
    )
    Node.start_ray_processes = patient(Node.start_ray_processes, get_node)
    node = Node(parameters, head=False, shutdown_at_exit=False, spawn_reaper=True)
    while signal.sigtimedwait({signal.SIGTERM}, 0.5) is None:
        for started in node.all_processes.values():  # a raylet that died and is not buried is alive to its workers
            for each in started:
                each.process.poll()
    node.kill_all_processes(check_alive=False, allow_graceful=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
