"""How fast is the bare engine beside Hugging Face generate and llama.cpp on one checkpoint at one precision?

    python -m benchmarks.engine_throughput [--size S|M|L] [--quantization none|int8|int4] [--threads N] [--repeats N]
                                           [--install]

Of 22, 125 or 473 M parameters, in bf16 or rounded while they load, beside llama.cpp's BF16, Q8_0 or Q4_0. Greedy.
Prefill: 512 tokens in, 1 out. Batches of 1, 8 and 32: 64 tokens in, 128 out, prefill included in the time. Tokens per
second, medians. Each engine runs in a process of its own, so that load time and peak memory are its own; all run once
forwards and once backwards, so that a machine that slows down is fair to all. Writes
results/engine_throughput_SIZE_PRECISION.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import llama_cpp
from benchmarks.peers.checkpoint import CACHE, SHAPES, checkpoint
from benchmarks.peers.workload import Order, argument
from benchmarks.record import quiet, write

ROOT = Path(__file__).parent.parent
COLUMNS = ("prefill", "b1", "b8", "b32")
LLAMA = {"int8": "Q8_0", "int4": "Q4_0"}
# Measured 2026-11-22 on 2 cores of a Xeon with AMX and AVX-512, 24 GiB, on checkpoints of the same shapes; llama.cpp
# there decoded from an empty context. Another machine than ours: compare the ratios, not the figures.
ELSEWHERE = {
    ("S", "none"): {
        "OpenVINO GenAI 2026.4": (38290, 626, 3687, 7482),
        "vLLM CPU 0.32": (35129, 336, 2083, 5528),
        "llama.cpp (ggml 0.25)": (6323, 722, 1236, 1312),
    },
    ("S", "int8"): {
        "vLLM CPU 0.32 W8A8": (36413, 356, 2193, 5174),
        "OpenVINO GenAI 2026.4": (35773, 691, 2574, 5566),
        "llama.cpp (ggml 0.25) Q8_0": (13748, 1453, 2619, 2837),
    },
    ("S", "int4"): {"llama.cpp (ggml 0.25) Q4_0": (13726, 2220, 2714, 2919)},
    ("M", "none"): {
        "OpenVINO GenAI 2026.4": (5129, 81, 500, 1210),
        "vLLM CPU 0.32": (4903, 58, 418, 1021),
        "llama.cpp (ggml 0.25)": (716, 65, 176, 272),
        "Hugging Face 5.23 generate": (2713, 30, 201, 506),
    },
    ("M", "int8"): {
        "vLLM CPU 0.32 W8A8": (6593, 93, 554, 1291),
        "OpenVINO GenAI 2026.4": (4640, 81, 393, 1035),
        "llama.cpp (ggml 0.25) Q8_0": (2204, 227, 427, 588),
    },
    ("M", "int4"): {
        "OpenVINO GenAI 2026.4": (5662, 142, 445, 1093),
        "llama.cpp (ggml 0.25) Q4_0": (2350, 429, 485, 602),
    },
    ("L", "none"): {
        "OpenVINO GenAI 2026.4": (1300, 23.9, 151, 289),
        "vLLM CPU 0.32": (1236, 19.1, 120, 324),
        "llama.cpp (ggml 0.25)": (182, 18.9, 55, 87),
    },
    ("L", "int8"): {
        "vLLM CPU 0.32 W8A8": (2108, 31.9, 179, 381),
        "OpenVINO GenAI 2026.4": (1110, 25.4, 110, 253),
        "llama.cpp (ggml 0.25) Q8_0": (439, 47.9, 134, 198),
    },
    ("L", "int4"): {"llama.cpp (ggml 0.25) Q4_0": (407, 84.5, 162, 201)},
}


def main() -> None:
    """Run every engine twice, print the table, write the result."""
    options = _options()
    load = quiet()
    folder, quantization = checkpoint(options.size), None if options.quantization == "none" else options.quantization
    engines = {"strata": ([sys.executable, "-m", "benchmarks.peers.strata"], folder)}
    if quantization is None:
        engines["hugging_face"] = ([sys.executable, "-m", "benchmarks.peers.hugging_face"], folder)
    peer = llama_cpp.install() if options.install and not llama_cpp.python() else llama_cpp.python()
    if peer is None:
        print("llama.cpp is left out: --install makes its environment (some minutes)")
    else:
        engines["llama_cpp"] = ([str(peer), llama_cpp.__file__], _converted(peer, folder, quantization))
    runs: dict[str, list[dict]] = {name: [] for name in engines}
    for seed, name in enumerate([*engines, *reversed(engines)]):
        command, path = engines[name]
        runs[name].append(_run(command, Order(str(path), options.threads, options.repeats, seed, quantization)))
        print(f"{name}: {_line(_medians(runs[name][-1:]))}", flush=True)
    name, result = f"engine_throughput_{options.size}_{options.quantization}", _result(runs, options)
    path = write(name, result, threads=options.threads, load_before=load)
    _print(json.loads(path.read_text()))
    print(f"\n{path.relative_to(ROOT)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="M")
    parser.add_argument("--quantization", choices=("none", *LLAMA), default="none")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3, help="in each of the two passes")
    parser.add_argument("--install", action="store_true", help="make missing peers' environments")
    return parser.parse_args()


def _converted(peer: Path, folder: Path, quantization: str | None) -> Path:
    file = CACHE / f"{folder.name}.gguf"
    _once(file, lambda part: [peer, llama_cpp.__file__, "convert", folder, part])
    if quantization is None:
        return file
    kind = LLAMA[quantization]
    rounded = CACHE / f"{folder.name}.{kind}.gguf"
    _once(rounded, lambda part: [peer, llama_cpp.__file__, "quantize", file, part, kind])
    return rounded


def _once(file: Path, command: Callable[[Path], list]) -> None:
    if not file.is_file():
        part = file.with_suffix(".part")
        subprocess.run(command(part), check=True, stdout=sys.stderr)
        part.replace(file)


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


def _result(runs: dict[str, list[dict]], options: argparse.Namespace) -> dict:
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
        "size": options.size,
        "quantization": options.quantization,
        "engines": engines,
        "ratio": {
            name: {c: ours[c] / engine["tokens_per_second"][c] for c in COLUMNS}
            for name, engine in engines.items()
            if name != "strata"
        },
        "elsewhere": ELSEWHERE[options.size, options.quantization],
    }


def _line(figures: dict[str, float]) -> str:
    return "  ".join(f"{c} {figures[c]:,.0f}" for c in COLUMNS)


def _print(result: dict) -> None:
    precision = "bf16" if result["quantization"] == "none" else result["quantization"]
    title = f"tokens per second, {result['size']} {precision}"
    head = f"{title:34}" + "".join(f"{c:>10}" for c in (*COLUMNS, "load s", "peak MB"))
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
        print(f"{name:34}" + "".join(f"{v:>10,.0f}" for v in figures))


if __name__ == "__main__":
    main()
