"""What do clients notice when a replica's process is killed or frozen, here and in plain Ray Serve?

    python -m benchmarks.failover_seconds [--model FOLDER] [--faults N] [--streams N] [--rate N]

The same model, engine, HTTP front, clients and faults on one local Ray, one after the other: two replicas of one rank
each, of which one process at a time gets SIGKILL or SIGSTOP while streams and short requests run, and the next only
when both are there again. Plain: the engine in a Serve replica that answers HTTP itself (`peers/plain_serve.py`), with
our period and time-out of health checks. Pauses are the longest of each stream that was open at a fault. Writes
results/failover_seconds.json.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import quiet, write
from cluster import runtime
from cluster.loopback import free_ports
from cluster.security.keys import KeyRing
from pipelines.chaos.faults import named
from pipelines.chaos.run import Run, Stage, Wanted
from pipelines.chaos.story import summary
from pipelines.settings import Settings

MODEL = "bench"
KINDS = ("kill-leader", "freeze-leader")
COLUMNS = ("failed", "cut", "wrong", "usage", "refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"))
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5.0)
    options = parser.parse_args()
    load = quiet()
    wanted = Wanted(
        named(KINDS), options.faults, 0.0, options.streams, options.rate, budget=10**9, patience_seconds=300.0,
        stream_tokens=400,
    )  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="strata-failover-") as folder:
        settings = _settings(Path(folder), options.model)
        runtime.connect(settings.cluster, runtime.start(settings.cluster))
        try:
            key = KeyRing(settings.cluster.keys_file).issue("bench", "default", "admin", 0)
            rows["strata"] = strata(settings, key, wanted)
            rows["plain Ray Serve"] = plain(settings, key, wanted, options.model)
        finally:
            runtime.disconnect()
            runtime.stop(settings.cluster)
    show(rows)
    facts = {"model": options.model.name, "streams": options.streams, "rate": options.rate, "rows": rows}
    print(f"kept in {write('failover_seconds', {'question': __doc__.splitlines()[0], **facts}, load_before=load)}")


def strata(settings: Settings, key: str, wanted: Wanted) -> dict[str, Any]:
    """Ours."""
    from pipelines.chaos.stage import Stage as Ours
    from pipelines.cli import serving
    from pipelines.cli.chaos import Gauge

    serving.publish(settings)
    serving.wait(settings, key, print)
    stage = Ours(settings.cluster, lambda: tuple(serving.gangs()), Gauge(settings.cluster.url, key))
    try:
        return measure(stage, settings, key, wanted)
    finally:
        serving.withdraw()


def plain(settings: Settings, key: str, wanted: Wanted, folder: Path) -> dict[str, Any]:
    """Theirs."""
    from ray import serve

    from benchmarks.peers.plain_serve import PlainStage, deploy
    from pipelines.app import answer

    answer(settings.cluster)
    deploy(folder, MODEL, settings.cluster.keys_file, 2)
    try:
        return measure(PlainStage(), settings, key, wanted)
    finally:
        serve.shutdown()


def measure(stage: Stage, settings: Settings, key: str, wanted: Wanted) -> dict[str, Any]:
    return summary(Run(stage, settings.cluster.url, key, MODEL, wanted, print).go())


def show(rows: dict[str, dict[str, Any]]) -> None:
    print(f"{'':18}{'faults':>8}{'streams':>9}{'plain':>7}" + "".join(f"{name:>8}" for name in COLUMNS), end="")
    print("".join(f"{name:>14}" for name in ("pause p50 s", "p99", "longest")))
    for name, row in rows.items():
        counts = "".join(f"{row[column]:8}" for column in COLUMNS)
        pauses = "".join(f"{row['pause'][each]:14.2f}" for each in ("p50", "p99", "most"))
        print(f"{name:18}{row['faults']:8}{row['streams']:9}{row['plain']:7}{counts}{pauses}")
        if row["stopped"]:
            print(f"  {row['stopped']}")


def _settings(folder: Path, model: Path) -> Settings:
    http, dashboard = free_ports(2)
    cluster = {"state_dir": str(folder / "state"), "http_port": http, "dashboard_port": dashboard, "num_cpus": 4}
    return Settings.of(
        {
            "cluster": cluster,
            "models": [
                {
                    "name": MODEL, "path": str(model.absolute()), "tensor_parallel_size": 1, "replicas": 2,
                    "limits": {"kv_cache_tokens": 65536},
                }
            ],
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
