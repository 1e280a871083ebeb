"""Join a Ray cluster, or start one of our own on this machine and end it without a trace.

Owns the local cluster's life: its head process, its record in the state folder. Knows nothing of what
runs on the cluster.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster import folders, loopback
from cluster.errors import NotReady, Unavailable
from cluster.settings import ClusterSettings

_started: list["subprocess.Popen[bytes]"] = []  # heads whose parent is this process, which has to bury them

START_SECONDS = 300.0  # 4 s on an idle machine; one that compiles on every core took 50. What fails ends before
STOP_SECONDS = 15.0
HEAD = "node:__internal_head__"  # Ray's own mark of the head node, where the key file lies

ALWAYS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing phones home
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # deployments run in Serve's own loop: no thread hop for every event
    "RAY_SERVE_LOG_TO_STDERR": "1",  # which that turns off, and then every line written there is traced to its caller
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",  # by default 0.1: processor time that ranks go without, for ever
    "RAY_worker_niceness": "0",  # by default 15: anything else on the machine would starve ranks, which spin
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # today's default warns at each start; this is tomorrow's
}

FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_TOKEN")  # of some other cluster; to Ray a token here goes before one in a file


@dataclass(frozen=True, slots=True)
class Running:
    """A local cluster that answers: the address of its control store, its head's process, its dashboard.

    `note` is what its owner should know of it, if there is something. `settings`: see `ClusterSettings.at_start`.
    `new`: the call that returned this started it.
    """

    address: str
    pid: int
    dashboard: str = ""
    url: str = ""
    note: str = ""
    host: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    new: bool = field(default=False, compare=False)


def environment(settings: ClusterSettings) -> dict[str, str]:
    """What every process of a local cluster and every driver needs in its environment before it imports Ray.

    A cluster that is joined has its own mind, and a driver on it has its environment already.
    """
    if settings.address != "local":
        return {"RAY_USAGE_STATS_ENABLED": "0"}
    return {**ALWAYS, **loopback.LOOPBACK_NODE, "RAY_AUTH_TOKEN_PATH": str(settings.state / "ray.token")}


def surroundings(settings: ClusterSettings, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of a local cluster: this one's, without what is meant for another cluster."""
    mine = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**mine, **environment(settings), **more}


def start(settings: ClusterSettings, ahead: Sequence[str] = ()) -> Running:
    """The local cluster of this state folder, started unless it runs. Raises Unavailable.

    `ahead`: what `forking.ahead` shall have imported for its workers.
    """
    folders.prepare(settings)
    with folders.alone(settings):
        running = find(settings)
        return running if running else replace(_start(settings, ahead), new=True)


def find(settings: ClusterSettings) -> Running | None:
    """The local cluster of this state folder, if its head is alive."""
    running = _record(settings)
    return running if running and _is_head(running.pid) else None


def unread(settings: ClusterSettings, running: Running) -> list[str]:
    """What the settings say otherwise than when the cluster was started, which it reads but then; a line each."""
    return [
        f"cluster.{name} is {_shown(now)}, and Strata was started with {_shown(running.settings[name])}: "
        "`strata down`, then `strata up` has it count"
        for name, now in sorted(settings.at_start.items())
        if name in running.settings and running.settings[name] != now
    ]


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def connect(settings: ClusterSettings, running: Running | None = None, python: str = "") -> None:
    """Make this process a driver of the cluster, whose actors' processes start by `python`. Raises Unavailable.

    Sets Ray's variables first: Ray reads them when it is imported, which `serve run` has done already.
    """
    wanted = environment(settings)
    if settings.address == "local" and "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        remedy = 'Ray was imported without its token; run eval "$(strata node-env)" in this shell first'
        raise Unavailable("the local cluster", remedy)
    if settings.address == "local":
        os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.update(wanted)
    import ray  # noqa: PLC0415 - heavy, and not before its environment stands

    if ray.is_initialized():
        return
    if settings.address == "local":  # for a Ray that was imported before its variable stood
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
    # What Ray has to say of processes that end it prints in the middle of ours; it is in its logs as well, and
    # `log_to_driver` covers only what the processes themselves print (ray/_private/worker.py, listen_error_messages).
    ray._private.worker._worker_logs_enabled = False
    address = running.address if running else settings.address
    try:
        own = {"py_executable": python} if python else {}
        ray.init(address, namespace="strata", log_to_driver=False, configure_logging=False, runtime_env=own)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as wrong:
        raise Unavailable(f"the Ray cluster {address}", str(wrong).splitlines()[0]) from None


def join(settings: ClusterSettings, python: str = "") -> None:
    """`connect` to the cluster that is meant: inside `ray job submit` the job's own, elsewhere the one of the settings.

    Raises Unavailable where there is none.
    """
    running = find(settings)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or os.environ.get("RAY_ADDRESS"):  # set by `ray job submit`
        connect(settings.model_copy(update={"address": "auto"}), python=python)
    elif settings.address == "local" and running is None:
        raise Unavailable("the local cluster", "it is not up; run `strata up --detach`, or set cluster.address")
    else:
        connect(settings, running, python)


def disconnect() -> None:
    """Stop being a driver."""
    if "ray" in sys.modules:
        import ray  # noqa: PLC0415 - it is loaded already

        ray.shutdown()


def stop(settings: ClusterSettings) -> int:
    """End the local cluster and everything that belongs to it; the number of processes that had to be ended.

    Works also when the head was killed and left processes behind.
    """
    if not settings.run_dir.exists() and not _record(settings):
        return 0
    folders.prepare(settings)
    with folders.alone(settings):
        running = _record(settings)
        members = processes(settings)
        if running and _is_head(running.pid):
            os.kill(running.pid, 15)
            _until(lambda: not _is_head(running.pid), STOP_SECONDS)
        _sweep(members | processes(settings))
        (settings.state / "runtime.json").unlink(missing_ok=True)
        shutil.rmtree(settings.run_dir, ignore_errors=True)
        return len(members)


def processes(settings: ClusterSettings) -> set[int]:
    """All processes of the local cluster: those in its head's session and those that name its run folder."""
    import psutil  # noqa: PLC0415 - only where processes are looked at

    running = _record(settings)
    session = running.pid if running and _may_be_session(running.pid) else None
    needle = f"{settings.run_dir}/"
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error, OSError):
            named = any(needle in part for part in process.info["cmdline"] or ())
            if process.pid != os.getpid() and (named or os.getsid(process.pid) == session):
                found.add(process.pid)
    return found


def _start(settings: ClusterSettings, ahead: Sequence[str]) -> Running:
    stop_remains(settings)
    loopback.install(settings.run_dir, head_seconds=settings.head_seconds, stall_seconds=settings.stall_seconds)
    log_path = settings.state / "head.log"
    more = {**loopback.environment(settings.run_dir), **store(settings), "PATH": search_path()}
    with folders.writing(settings), log_path.open("wb") as log:
        head = subprocess.Popen(
            [sys.executable, "-m", "cluster.head"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=surroundings(settings, more),
            start_new_session=True,  # a Ctrl-C in the terminal is for us: we drain first
        )
    running = None
    try:
        assert head.stdin
        head.stdin.write(json.dumps([settings.model_dump(mode="json"), *ahead]).encode())
        head.stdin.close()
        _started.append(head)
        _until(lambda: find(settings) is not None or head.poll() is not None, START_SECONDS)
        running = find(settings)
    finally:
        if running is None:  # also where a Ctrl-C came between
            head.kill()
            stop_remains(settings)
    if running is None:
        raise NotReady("Ray", f"it did not start; its last words are {_last_line(log_path)!r}, the rest in {log_path}")
    return running


def store(settings: ClusterSettings) -> dict[str, str]:
    """Ray's variables that have its control store on disk, so that one that dies is started again where it was.

    RocksDB and not Valkey: it is in Ray's own program, so there is no second process to watch, and a local cluster has
    one machine whose disk is as alive as it is.
    """
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(settings.run_dir / "ray" / "store")}


def search_path() -> str:
    """PATH with this interpreter's own programs first: `python` and `ray` in a job are then those that Strata is in."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def stop_remains(settings: ClusterSettings) -> None:
    """End what an earlier head left behind."""
    _sweep(processes(settings))
    (settings.state / "runtime.json").unlink(missing_ok=True)
    shutil.rmtree(settings.run_dir / "ray", ignore_errors=True)


def _sweep(pids: set[int]) -> None:
    """End these processes, politely first."""
    import psutil  # noqa: PLC0415 - only where processes are looked at

    left = []
    for pid in pids:
        with suppress(psutil.Error):
            left.append(psutil.Process(pid))
    for act, seconds in ((psutil.Process.terminate, 3.0), (psutil.Process.kill, 5.0)):
        for process in left:
            with suppress(psutil.Error):
                act(process)
        _, left = psutil.wait_procs(left, seconds)
    for head in list(_started):
        if head.poll() is not None:
            _started.remove(head)


def _record(settings: ClusterSettings) -> Running | None:
    try:
        facts: dict[str, Any] = json.loads((settings.state / "runtime.json").read_text())
        more = (facts.get("note", ""), facts.get("host", ""), facts.get("settings", {}))
        return Running(facts["address"], facts["pid"], facts["dashboard"], facts["url"], *more)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_head(pid: int) -> bool:
    """Whether this process is a head; its number may meanwhile belong to another."""
    import psutil  # noqa: PLC0415 - only where processes are looked at

    try:
        process = psutil.Process(pid)
        return "cluster.head" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _may_be_session(pid: int) -> bool:
    """Whether session `pid` is still the one that our head led.

    The kernel gives out no number that a session still has: if a process has it, it is our head or the session is over.
    """
    import psutil  # noqa: PLC0415 - only where processes are looked at

    return not psutil.pid_exists(pid) or _is_head(pid)


def _until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
