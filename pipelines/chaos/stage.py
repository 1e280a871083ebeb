"""The running stack as faults see it: which processes belong to it, how many there are, and a hand on them.

Only processes that the directory or Ray names as the stack's are ever signalled, each on the node that has it. Decides
nothing. Its caller is a driver of the cluster already.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.directory import Entry
from cluster import runtime
from cluster.settings import ClusterSettings
from pipelines.chaos.faults import CONTROLLER, NODE, STORE, Gang, Sight, Target

_ASK_SECONDS = 30.0
OURS = (
    "Directory",
    "ShardActor",
    "ServeController",
    "ServeReplica",
)  # what the names of our actors' classes begin with
_CONTROLLER = "ServeController"


class Stage:
    """One running stack."""

    def __init__(
        self, settings: ClusterSettings, entries: Callable[[], Sequence[Entry]], gauge: Callable[[str], float]
    ) -> None:
        """`entries` asks the directory, `gauge` the gateway: a metric's sum."""
        self._settings, self._entries, self._gauge = settings, entries, gauge
        self._struck: dict[int, str] = {}  # the node of each process that was signalled, or whose gang was lost by it
        self._seen: dict[str, Gang] = {}
        self._lost: set[str] = set()  # replicas that were struck

    def sight(self) -> Sight:
        """What serves and may be struck."""
        gangs = tuple(
            Gang(entry.model, entry.replica, entry.node, entry.leader_pid, entry.shard_pids)
            for entry in self._entries()
            if entry.replica not in self._lost and self._whole(entry)
        )
        self._seen |= {gang.replica: gang for gang in gangs}
        return Sight(gangs, (*self._controllers(), *self._stores(), *self._nodes(gangs)))

    def strike(self, target: Target, how: signal.Signals) -> None:
        """Signal it, where it is."""
        self._lost |= set(target.gangs)
        lost = [self._seen[replica] for replica in target.gangs]
        self._struck |= {pid: gang.node for gang in lost for pid in (gang.leader, *gang.shards)}
        self._struck[target.pid] = target.node
        if target.role != NODE and self._here(target.node):
            os.kill(target.pid, how)
            return
        there = NodeAffinitySchedulingStrategy(target.node, soft=False)
        task = ray.remote(_signaller()).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
        with suppress(ray.exceptions.RayError):  # a node takes its task along
            ray.get(task.remote(target.pid, int(how)), timeout=_ASK_SECONDS)

    def still(self) -> list[str]:
        """What was struck on this machine, gangs to the last rank, and has not ended: nothing is to be left frozen."""
        return [
            f"{_role(pid)} {pid} was struck and is still there"
            for pid, node in self._struck.items()
            if self._here(node) and psutil.pid_exists(pid) and _ours(pid)
        ]

    def counts(self) -> Counter[str]:
        """What there is of everything that could be left behind."""
        groups = ray.util.placement_group_table().values()
        found = Counter({"placement groups": sum(group["state"] == "CREATED" for group in groups)})
        found.update(f"actor {_kind(actor)}" for actor in _alive())
        found.update(f"process {role}" for role in self._processes())
        found["shared memory"] = len(segments())
        found["KV blocks, per mille"] = round(1000 * self._gauge("vllm:kv_cache_usage_perc"))
        found["running sequences"] = round(self._gauge("vllm:num_requests_running"))
        return found

    def _processes(self) -> Iterator[str]:
        """The role of each process of this cluster's on this machine, whether Ray still knows of it or not."""
        folder = str(self._settings.run_dir)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                role = _role(process.pid)
                if role and any(folder in value for value in process.environ().values()):
                    yield role

    def _whole(self, entry: Entry) -> bool:
        pids = (entry.leader_pid, *entry.shard_pids)
        return not self._here(entry.node) or all(_runs(pid) for pid in pids)

    def _here(self, node: str) -> bool:
        """Whether a node is this machine: then processes of it are signalled without Ray's help."""
        mine = ray.util.get_node_ip_address()
        return any(each["NodeID"] == node and each["NodeManagerAddress"] == mine for each in ray.nodes())

    def _controllers(self) -> list[Target]:
        return [
            Target(CONTROLLER, actor["Pid"], actor["Address"]["NodeID"])
            for actor in _alive()
            if _kind(actor) == _CONTROLLER and actor["Pid"] not in self._struck
        ]

    def _stores(self) -> list[Target]:
        """A control store is restarted only by our own head."""
        if self._settings.address != "local":
            return []
        here = ray.get_runtime_context().get_node_id()
        pids = [pid for pid in runtime.processes(self._settings) if _role(pid) == "gcs_server"]
        return [Target(STORE, pid, here) for pid in pids if pid not in self._struck]

    def _nodes(self, gangs: Sequence[Gang]) -> list[Target]:
        """All but the head, which holds the gateway."""
        found = []
        for node in ray.nodes():
            if node["Alive"] and runtime.HEAD not in node["Resources"]:
                lost = tuple(gang.replica for gang in gangs if gang.node == node["NodeID"])
                found.append(Target(NODE, 0, node["NodeID"], lost))
        return found


def _signaller() -> Callable[[int, int], None]:
    """Sends a signal on the node that it runs on; to process 0, to that node's raylet. Travels by value."""

    def send(pid: int, how: int) -> None:
        os.kill(pid or int(os.environ["RAY_RAYLET_PID"]), how)  # its parent may be another, see cluster.forking

    return send


def segments() -> list[str]:
    """Our shared memory; which cores are taken is written in some that stays."""
    files = Path("/dev/shm").glob("strata-*")  # noqa: S108 - looked at, not written
    return [file.name for file in files if not file.name.startswith("strata-cores-")]


def _alive() -> list[Mapping[str, Any]]:
    return [
        actor
        for actor in ray._private.state.actors().values()
        if actor["State"] == "ALIVE" and _kind(actor).startswith(OURS)
    ]


def _kind(actor: Mapping[str, Any]) -> str:
    """A class's name without what Serve adds to it."""
    return str(actor["ActorClassName"]).partition(":")[0]


def _runs(pid: int) -> bool:
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED))
    return False


def _ours(pid: int) -> bool:
    """Whether a process is still what was struck: its number may belong to another by now."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and bool(_role(pid))
    return False


def _role(pid: int) -> str:
    """What a process is to the stack; nothing for Ray's own that come and go."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        if process.name() == "gcs_server":
            return "gcs_server"
        line = " ".join(process.cmdline())
        return next((name for name in OURS if f"ray::{name}" in line), "")
    return ""
