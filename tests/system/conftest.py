"""The whole stack on three simulated nodes, deployed as a Ray job, with a random model that the fixture makes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cluster.security.keys import KeyRing
from cluster.settings import ClusterSettings
from tests.system.machines import ROOT, Machines, joined

MODEL = "tiny"
STANDING: list["Stack"] = []


@dataclass
class Stack:
    """A running stack: where it answers, with which key, and how to look inside."""

    settings: ClusterSettings
    key: str
    folder: Path
    clone: Path

    @property
    def url(self) -> str:
        return self.settings.url

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=self.headers, trust_env=False, timeout=30)

    def gauge(self, name: str) -> float:
        """A metric's sum over its label sets."""
        rows = [line for line in self.get("/metrics").text.splitlines() if line.startswith((name + " ", name + "{"))]
        assert rows, f"no metric {name}"
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)

    def running(self, replica: str) -> bool:
        """Whether this replica has requests in a batch, as the gateway knows."""
        rows = self.get("/metrics").text.splitlines()
        return any(
            row.startswith("vllm:num_requests_running{") and replica in row and not row.endswith(" 0.0") for row in rows
        )

    def entries(self) -> list:
        """What the directory knows."""
        import ray

        return list(ray.get(ray.get_actor("directory", namespace="strata").entries.remote()))


def until(done: Callable[[], object], seconds: float = 120.0, what: Callable[[], object] = lambda: "") -> None:
    """Poll until `done()` is true; fail after `seconds` and say `what` there is instead."""
    deadline = time.monotonic() + seconds
    while not _holds(done):
        assert time.monotonic() < deadline, f"it did not come to pass {what()}"
        time.sleep(0.05)


def _holds(done: Callable[[], object]) -> bool:
    """An actor that is being made again, as after a control store was, cannot tell yet."""
    import ray

    try:
        return bool(done())
    except ray.exceptions.RayError:
        return False


@pytest.fixture(scope="module", autouse=True)
def given_back() -> Iterator[None]:
    """After each file, all cores are free again but those of the shared stack's own gangs."""
    yield
    if STANDING:
        until(lambda: len(STANDING[0].entries()) == 2)
        until(lambda: cores_held() == 2 * 2, 30.0, holders)


def cores_held() -> float:
    """How many of the cluster's cores somebody has."""
    import ray

    return ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)


def holders() -> str:
    """Who may have them, for a person to read."""
    import ray

    from pipelines import places

    groups = [
        (each["name"], each["state"], each["bundles"], each["bundles_to_node_id"])
        for each in places.groups()
        if each["state"] != "REMOVED"
    ]
    jobs = [(row["JobID"], row["Entrypoint"]) for row in ray._private.state.jobs() if not row["IsDead"]]
    actors = [
        (row["ActorClassName"], row["Name"], row["Address"]["NodeID"], row["Pid"])
        for row in ray._private.state.actors().values()
        if row["State"] != "DEAD"
    ]
    rows = [*groups, *jobs, *actors, *ray._private.state.available_resources_per_node().items()]
    return "\n".join(map(str, rows))


@pytest.fixture(scope="session")
def machines(ray_cluster: ClusterSettings) -> Iterator[Machines]:
    """Nodes beside the shared cluster's head of two cores."""
    made = Machines(ray_cluster, joined(ray_cluster))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def nodes(ray_cluster: ClusterSettings, machines: Machines) -> ClusterSettings:
    """Two more nodes of three cores; one after the other, as two at once would take the same socket's name."""
    for name in ("b", "c"):
        machines.start(name)
    return ray_cluster


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers whose tokenizer knows bytes and nothing else."""
    from tests.system.model import write

    return write(tmp_path_factory.mktemp("models") / MODEL)


@pytest.fixture(scope="session")
def clone(nodes: ClusterSettings, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a person has who cloned Strata and wrote a strata.yaml into it."""
    folder = tmp_path_factory.mktemp("clone")
    for package in ("cluster", "actors", "pipelines"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (".gitignore", ".rayignore"):  # Ray leaves out what both say
        shutil.copy(ROOT / file, folder)
    cluster = {
        "http_port": nodes.http_port,
        "dashboard_port": nodes.dashboard_port,
        "state_dir": str(nodes.state),
        "proxies": "head",
        "drain_seconds": 2.0,
    }
    model = {
        "name": MODEL,
        "path": str(model_folder),
        "tensor_parallel_size": 2,
        "replicas": 2,
        "dtype": "float32",
        "limits": {"running_sequences": 32, "queued_sequences": 250, "step_tokens": 64, "kv_cache_tokens": 32768},
    }
    # short, for those who are slow on purpose, and for those who do not come back
    gateway = {"body_seconds": 3.0, "farewell_seconds": 3.0, "resume_seconds": 10.0, "queue_seconds": 120.0}
    gateway |= {"hold_seconds": 120.0}  # two gangs at once take long to start on two busy cores
    (folder / "strata.yaml").write_text(yaml.safe_dump({"cluster": cluster, "models": [model], "gateway": gateway}))
    return folder


@pytest.fixture(scope="session")
def stack(nodes: ClusterSettings, model_folder: Path, clone: Path) -> Iterator[Stack]:
    """Two replicas of two shards, deployed by `ray job submit`, ready."""
    done = submit(clone)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    key = KeyRing(nodes.keys_file).issue("tests", "default", "admin", 0)
    made = Stack(nodes, key, model_folder, clone)
    assert made.get("/ready").status_code == 200, "deploy returns when it is"
    until(lambda: len(made.entries()) == 2)
    STANDING.append(made)
    yield made
    STANDING.clear()
    from pipelines.cli import serving

    serving.withdraw()


@contextmanager
def also(stack: Stack, edit: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """The stack with other settings: deployed as `edit` leaves them, and as they were again afterwards."""
    file = stack.clone / "strata.yaml"
    written = file.read_text()
    settings = yaml.safe_load(written)
    edit(settings)
    file.write_text(yaml.safe_dump(json.loads(json.dumps(settings))))  # else what stands there twice is an alias
    try:
        deploy(stack)
        yield
    finally:
        file.write_text(written)
        deploy(stack)


def deploy(stack: Stack) -> None:
    """What its clone says, or fail with what was said."""
    done = submit(stack.clone)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def submit(folder: Path) -> subprocess.CompletedProcess[str]:
    """Deploy as the README says, in a shell that knows nothing; Ray's job agent comes up a while after its node."""
    plain = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "NO_PROXY": "*"}
    line = (
        f'eval "$({sys.executable} -m pipelines.cli env)" && '
        "ray job submit --working-dir . -- python -m pipelines.cli deploy -f strata.yaml"
    )
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=plain, capture_output=True, text=True, check=False
        )  # fmt: skip
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
