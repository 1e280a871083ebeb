"""How fast is the bare engine beside Hugging Face generate and llama.cpp on one checkpoint of 125 M parameters?

    python -m benchmarks.engine_throughput [--threads N] [--repeats N] [--install]

bf16, greedy. Prefill: 512 tokens in, 1 out. Batches of 1, 8 and 32: 64 tokens in, 128 out, prefill included in the
time. Tokens per second, medians. Each engine runs in a process of its own, so that load time and peak memory are its
own; all run once forwards and once backwards, so that a machine that slows down is fair to all. Writes
results/engine_throughput.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import llama_cpp
from benchmarks.peers.checkpoint import CACHE, checkpoint
from benchmarks.peers.workload import Order, argument
from benchmarks.record import quiet, write

ROOT = Path(__file__).parent.parent
COLUMNS = ("prefill", "b1", "b8", "b32")
# Measured 2026-11-22 on 2 cores of a Xeon with AMX and AVX-512, 24 GiB, on a checkpoint of the same shape; llama.cpp
# there decoded from an empty context. Another machine than ours: compare the ratios, not the figures.
ELSEWHERE = {
    "OpenVINO GenAI 2026.4": (5129, 81, 500, 1210),
    "vLLM CPU 0.32": (4903, 58, 418, 1021),
    "llama.cpp (ggml 0.25)": (716, 65, 176, 272),
    "Hugging Face 5.23 generate": (2713, 30, 201, 506),
}


def main() -> None:
    """Run every engine twice, print the table, write the result."""
    options = _options()
    load = quiet()
    folder = checkpoint()
    engines = {
        "strata": ([sys.executable, "-m", "benchmarks.peers.strata"], folder),
        "hugging_face": ([sys.executable, "-m", "benchmarks.peers.hugging_face"], folder),
    }
    peer = llama_cpp.install() if options.install and not llama_cpp.python() else llama_cpp.python()
    if peer is None:
        print("llama.cpp is left out: --install makes its environment (some minutes)")
    else:
        engines["llama_cpp"] = ([str(peer), llama_cpp.__file__], _converted(peer, folder))
    runs: dict[str, list[dict]] = {name: [] for name in engines}
    for seed, name in enumerate([*engines, *reversed(engines)]):
        command, path = engines[name]
        runs[name].append(_run(command, Order(str(path), options.threads, options.repeats, seed)))
        print(f"{name}: {_line(_medians(runs[name][-1:]))}", flush=True)
    path = write("engine_throughput", _result(runs), threads=options.threads, load_before=load)
    _print(json.loads(path.read_text()))
    print(f"\n{path.relative_to(ROOT)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3, help="in each of the two passes")
    parser.add_argument("--install", action="store_true", help="make missing peers' environments")
    return parser.parse_args()


def _converted(peer: Path, folder: Path) -> Path:
    file = CACHE / f"{folder.name}.gguf"
    if not file.is_file():
        part = file.with_suffix(".part")
        subprocess.run([peer, llama_cpp.__file__, "convert", folder, part], check=True)
        part.replace(file)
    return file


def _run(command: list[str], order: Order) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": str(order.threads), "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(
        [*command, argument(order)], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _medians(runs: list[dict]) -> dict[str, float]:
    return {c: statistics.median([f for run in runs for f in run["figures"][c]]) for c in COLUMNS}


def _result(runs: dict[str, list[dict]]) -> dict:
    engines = {
        name: {
            "tokens_per_second": _medians(every),
            "load_seconds": min(run["load_seconds"] for run in every),
            "peak_mb": max(run["peak_mb"] for run in every),
            "versions": every[0]["versions"],
            "samples": [run["figures"] for run in every],
        }
        for name, every in runs.items()
    }
    ours = engines["strata"]["tokens_per_second"]
    return {
        "question": __doc__.splitlines()[0],
        "engines": engines,
        "ratio": {
            name: {c: ours[c] / engine["tokens_per_second"][c] for c in COLUMNS}
            for name, engine in engines.items()
            if name != "strata"
        },
        "elsewhere": ELSEWHERE,
    }


def _line(figures: dict[str, float]) -> str:
    return "  ".join(f"{c} {figures[c]:,.0f}" for c in COLUMNS)


def _print(result: dict) -> None:
    head = f"{'tokens per second, bf16':34}" + "".join(f"{c:>10}" for c in (*COLUMNS, "load s", "peak MB"))
    print(f"\n{result['machine']['processor']}, {result['machine']['threads']} threads\n{head}")
    for name, engine in result["engines"].items():
        cells = [engine["tokens_per_second"][c] for c in COLUMNS]
        print(
            f"{name:34}"
            + "".join(f"{v:>10,.0f}" for v in cells)
            + f"{engine['load_seconds']:>10.1f}{engine['peak_mb']:>10,.0f}"
        )
    for name, ratio in result["ratio"].items():
        print(f"{'strata / ' + name:34}" + "".join(f"{ratio[c]:>10.2f}" for c in COLUMNS))
    print("\nelsewhere: 2 cores of a Xeon with AMX")
    for name, figures in result["elsewhere"].items():
        print(f"{name:34}" + "".join(f"{v:>10,}" for v in figures))


if __name__ == "__main__":
    main()
