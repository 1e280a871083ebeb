"""How long is it from `strata up` to the first token, with a fresh state folder and at the second start?

    python -m benchmarks.startup [--model FOLDER] [--ranks N]

Runs `strata up --detach --json`, asks for one token, runs `strata down`; twice. Cold: a state folder that is new, so
that keys, token and Ray's files are made and what is compiled is asked for once; the compilers' own caches stay. Warm:
the same folder again. `ray` is when Ray is up; `up` returns when every rank has made a token; `asked` is the first
token of a client after that. All count from the command's start. Writes results/startup.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.record import quiet, write
from cluster.loopback import free_ports
from pipelines.driver import connect

STARTS = ("cold", "warm")
STRATA = (sys.executable, "-m", "pipelines.cli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"))
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    load = quiet()
    with tempfile.TemporaryDirectory(prefix="strata-startup-") as folder:
        settings = _settings(Path(folder), options.model, options.ranks)
        key = ""
        seconds = {}
        print(f"{'seconds':10}{'ray':>8}{'up':>8}{'asked':>8}{'down':>8}")
        for start in STARTS:
            row, key = measure(settings, key)
            seconds[start] = row
            print(f"{start:10}" + "".join(f"{value:8.1f}" for value in row.values()), flush=True)
    result = {
        "question": __doc__.splitlines()[0],
        "model": options.model.name,
        "ranks": options.ranks,
        "seconds": seconds,
    }
    print(f"kept in {write('startup', result, load_before=load)}")


def measure(settings: Path, key: str) -> tuple[dict[str, float], str]:
    """Seconds of one start, its first token and its stop; and the API key, which only the first start prints."""
    began = time.perf_counter()
    try:
        announced, ray = _up(settings)
        up = time.perf_counter() - began
        key = announced["key"] or key
        with connect(announced["url"].removesuffix("/v1"), key) as strata:
            strata.complete("a", announced["models"][0], max_tokens=1, ignore_eos=True)
        asked = time.perf_counter() - began
    finally:
        ending = time.perf_counter()
        _strata("down", "-f", str(settings))
    return {"ray": ray, "up": up, "asked": asked, "down": time.perf_counter() - ending}, key


def _settings(folder: Path, model: Path, ranks: int) -> Path:
    http, dashboard = free_ports(2)
    cluster = {"state_dir": str(folder / "state"), "http_port": http, "dashboard_port": dashboard}
    models = [{"name": "starter", "path": str(model.absolute()), "tensor_parallel_size": ranks}]
    file = folder / "strata.yaml"
    file.write_text(yaml.safe_dump({"cluster": cluster, "models": models}))
    return file


def _up(settings: Path) -> tuple[dict[str, Any], float]:
    """What `up` announces, and the seconds until it said that Ray is there."""
    began, ray, said = time.perf_counter(), 0.0, []
    command = [*STRATA, "up", "--detach", "--json", "-f", str(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            said.append(line)
            if "Ray is at" in line:
                ray = time.perf_counter() - began
        told = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"strata up failed:\n{told[-1000:]}\n{''.join(said)[-2000:]}")
    return json.loads(told), ray


def _strata(*words: str) -> str:
    command = [*STRATA, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"strata {words[0]} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
