"""Do clients notice when versions change places, and how soon is one that is taken back asked no more?

    python -m benchmarks.releases [--model FOLDER] [--rollouts N] [--clients N]

The whole stack on loopback with the model twice, as two versions of a name, and clients that ask all the time, each
time as another user. So many rollouts to the end, one version for the other and back, and as many that are aborted once
half of the users meet the new version: from the abort until the last request that the new version was given. Bars: no
request fails, 1 s. The clients share the cores with all that they measure. Writes results/releases.json.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from benchmarks.record import quiet, write

PORT = 18_730
MODEL = "bench"
VERSIONS = ("base", "other")
ENDS = ("promoted", "rolled back")
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was sent, what it was answered and by which version."""

    at: float
    seconds: float
    status: int
    version: str


@dataclass
class Crowd:
    """Clients that ask one thing after the other."""

    http: httpx.Client
    heard: list[Asked] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _users: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def asking(self, clients: int) -> Iterator[None]:
        """So many, for as long as this lasts."""
        threads = [threading.Thread(target=self._keep) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _keep(self) -> None:
        while not self._over.is_set():
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
            began = time.perf_counter()
            try:
                answer = self.http.post("/v1/chat/completions", json=body | {"user": f"user-{next(self._users)}"})
                status, version = answer.status_code, answer.headers.get("x-strata-version", "")
            except httpx.TransportError:
                status, version = 0, ""
            self.heard.append(Asked(began, time.perf_counter() - began, status, version))


def until(true: Callable[[], bool], what: str) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"within {PATIENCE_SECONDS:g} s it did not come to pass that {what}")
        time.sleep(LOOK_SECONDS)


def begin(http: httpx.Client, to: str, **more: Any) -> str:
    """A rollout's name."""
    terms = {"model": MODEL, "to": to, "steps": [50, 100], "margin": None, **more}
    answer = http.post("/v1/rollouts", json=terms)
    answer.raise_for_status()
    return str(answer.json()["name"])


def state(http: httpx.Client, name: str) -> str:
    """What became of it so far."""
    return str(http.get(f"/v1/rollouts/{name}").json().get("state", ""))


def promoted(http: httpx.Client, to: str) -> float:
    """Seconds of a rollout to its end."""
    began = time.perf_counter()
    name = begin(http, to, every_seconds=0.5, answers=5)
    until(lambda: state(http, name) in ENDS, f"{name} ended")
    if state(http, name) != "promoted":
        sys.exit(f"{name} was taken back: {http.get(f'/v1/rollouts/{name}').json()['reason']}")
    return time.perf_counter() - began


def aborted(http: httpx.Client, crowd: Crowd, to: str) -> float:
    """Seconds from an abort to the last request that was given to the new version."""
    name = begin(http, to, every_seconds=600)
    before = len(crowd.heard)
    until(lambda: any(asked.version == to for asked in crowd.heard[before:]), f"{to} was asked")
    at = time.perf_counter()
    http.post(f"/v1/rollouts/{name}", json={"action": "abort"}).raise_for_status()
    until(lambda: state(http, name) == "rolled back", f"{name} was taken back")
    back = time.perf_counter()
    until(lambda: sum(asked.at > back for asked in crowd.heard) >= 40, "clients asked on")
    return max((asked.at - at for asked in crowd.heard[before:] if asked.version == to), default=0.0)


def measured(url: str, key: str, rollouts: int, clients: int) -> dict[str, Any]:
    """All of it."""
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=2 * clients)
    with httpx.Client(base_url=url, headers=headers, limits=limits, trust_env=False, timeout=60) as http:
        crowd = Crowd(http)
        seconds, back = [], []
        with crowd.asking(clients):
            for turn in range(rollouts):
                seconds.append(promoted(http, VERSIONS[(turn + 1) % 2]))
                _tell("promoted", turn, rollouts, seconds[-1])
            new = VERSIONS[(rollouts + 1) % 2]
            for turn in range(rollouts):
                back.append(aborted(http, crowd, new))
                _tell("taken back", turn, rollouts, back[-1])
    answers = [asked.seconds for asked in crowd.heard]
    return {
        "requests": len(crowd.heard),
        "failed": sum(asked.status != 200 for asked in crowd.heard),
        "by_version": {version: sum(asked.version == version for asked in crowd.heard) for version in VERSIONS},
        "answer_seconds": {"p50": _of(answers, 50), "p99": _of(answers, 99), "most": max(answers)},
        "rollout_seconds": {"p50": _of(seconds, 50), "most": max(seconds)},
        "taken_back_seconds": {"p50": _of(back, 50), "p99": _of(back, 99), "most": max(back)},
    }


def _tell(what: str, turn: int, turns: int, seconds: float) -> None:
    print(f"{what} {turn + 1} of {turns}: {seconds:.2f} s", flush=True)


def _of(values: list[float], share: float) -> float:
    return float(np.percentile(values, share))


def served(model: Path, rollouts: int, clients: int) -> dict[str, Any]:
    """Start the whole stack, release, stop it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "strata.yaml"
        path = {"path": str(model.absolute()), "tensor_parallel_size": 1, "speculation": "off"}
        models = [{"name": MODEL, **path}, {"name": f"{MODEL}@{VERSIONS[1]}", **path}]
        cluster = {"state_dir": f"{folder}/state", "http_port": PORT, "dashboard": False}
        settings.write_text(yaml.safe_dump({"cluster": cluster, "models": models}))
        strata = [sys.executable, "-m", "pipelines.cli"]
        try:
            up = subprocess.run(
                [*strata, "up", "--detach", "--json", "-f", settings], capture_output=True, text=True, check=True
            )
            return measured(f"http://127.0.0.1:{PORT}", json.loads(up.stdout)["key"], rollouts, clients)
        finally:
            subprocess.run([*strata, "down", "-f", settings], capture_output=True, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"))
    parser.add_argument("--rollouts", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    load = quiet()
    found = served(options.model, options.rollouts, options.clients)
    print(json.dumps(found, indent=2))
    result = {"model": options.model.name, "rollouts": options.rollouts, "clients": options.clients, **found}
    print(f"kept in {write('releases', result, load_before=load)}")


if __name__ == "__main__":
    main()
