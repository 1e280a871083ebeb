"""Nodes beside the shared cluster's head, each a process with its own files and ports.

A node that does not come up is tried again, and says why in the end. How long one takes is the machine's affair: what
is waited for is that it is there or that its process has ended.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cluster import loopback, runtime
from cluster.settings import ClusterSettings

ROOT = Path(__file__).parents[2]
ATTEMPTS = 3
CORES = 3  # room for one gang of two: those of a model never gather on one node, which no fault may then befall
HUNG_SECONDS = 240.0  # of a node that lives and is not there; 4 s on an idle machine
LAST_BYTES = 3000


class Process(Protocol):
    """What a node runs in."""

    def poll(self) -> int | None: ...


class Machines:
    """Starts and ends them; `address` is the control store of the cluster that they join."""

    def __init__(self, settings: ClusterSettings, address: str) -> None:
        self._settings, self._address = settings, address
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """A node of three cores, up when this returns; one of that name which was lost is buried first."""

        def begin() -> subprocess.Popen[bytes]:
            self.end(name)
            return self._begin(name)

        come_up(begin, lambda: there(name), lambda: f"{self._words(name)}\n{cluster_words(self._settings)}")

    def end(self, name: str) -> None:
        """End the node, if there is one."""
        process = self._processes.pop(name, None)
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:  # it blocks SIGTERM until it is up
                process.kill()
                process.wait()

    def close(self) -> None:
        """End all."""
        for name in list(self._processes):
            self.end(name)

    def _begin(self, name: str) -> subprocess.Popen[bytes]:
        folder = self._settings.run_dir / name
        surroundings = runtime.surroundings(self._settings, loopback.ingress(folder))
        command = [sys.executable, "-m", "tests.system.node", self._address, name, str(CORES), str(folder / "ray")]
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, env=surroundings, cwd=ROOT, start_new_session=True, stdout=log, stderr=log
            )
        return self._processes[name]

    def _log(self, name: str) -> Path:
        return self._settings.state / f"node-{name}.log"

    def _words(self, name: str) -> str:
        return self._log(name).read_bytes()[-LAST_BYTES:].decode(errors="replace").strip()


def come_up(
    begin: Callable[[], Process],
    up: Callable[[], bool],
    words: Callable[[], str],
    rest: Callable[[], None] = lambda: time.sleep(0.05),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Begin until one is up, `ATTEMPTS` times at the most. Raises AssertionError with what each of them said."""
    failed = []
    for attempt in range(1, ATTEMPTS + 1):
        process, deadline = begin(), clock() + HUNG_SECONDS
        while True:
            ended = process.poll()  # before the look: a node that is there and ends at once was up
            if up():
                return
            if ended is not None or clock() > deadline:
                how = "hung" if ended is None else f"ended with status {ended}"
                failed.append(f"attempt {attempt} {how}: {words()}")
                break
            rest()
    raise AssertionError("the node did not come up\n" + "\n".join(failed))


def there(name: str) -> bool:
    """Whether a node of that name is alive, whatever became of others or of earlier ones."""
    import ray

    return any(node["Alive"] and name in node["Resources"] for node in ray.nodes())


def cluster_words(settings: ClusterSettings) -> str:
    """What the cluster knows of its nodes, and whether its head lives."""
    import ray

    rows = [
        f"{'alive' if node['Alive'] else 'dead'} {sorted(node['Resources'])} {node.get('DeathReasonMessage') or ''}"
        for node in ray.nodes()
    ]
    return f"head: {runtime.find(settings) or 'gone'}; nodes: {'; '.join(rows)}"


def joined(settings: ClusterSettings) -> str:
    """Make this process a driver of the shared cluster, whatever it was before; the address of its control store."""
    running = runtime.find(settings)
    log = settings.state / "head.log"
    assert running, (
        f"the shared cluster's head is gone; it said: {log.read_text()[-LAST_BYTES:] if log.exists() else ''}"
    )
    import ray

    if ray.is_initialized() and ray.get_runtime_context().gcs_address != running.address:
        runtime.disconnect()
    runtime.connect(settings, running)  # another test may have ended this process's connection
    return running.address
