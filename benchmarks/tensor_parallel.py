"""Does a model on two ranks of one core each keep up with the same model on two threads, and what do its sums cost?

    python -m benchmarks.tensor_parallel [--size S|M|L ...] [--quantization none|int8|int4] [--repeats N]

Tokens per second of prefill (512 tokens) and decode (64 in, 128 out; batch 1, 8, 32), both ways in turns within one
run, medians. Then microseconds of one sum over both ranks by the number of its rows, beside the least that shared
memory allows: a line that one core wrote and another reads (measured as a ball passed to and fro), and the bytes at the
rate at which one core copies them. Writes results/tensor_parallel_SIZE_QUANTIZATION.json.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import subprocess
import time
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from actors.engine import LLM, SamplingParams
from actors.models.kernels.collective import Collective
from benchmarks.peers.checkpoint import SHAPES, checkpoint
from benchmarks.record import quiet, write

BAR = 0.9
BATCHES = (1, 8, 32)
PROMPT, ANSWER, PREFILL = 64, 128, 512
SUMS, ROUNDS = 400, 9


def prompts(count: int, length: int, seed: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(10, 31_000) for _ in range(length)] for _ in range(count)]


def speed(llm: LLM, batch: int, seed: int) -> float:
    """Tokens per second: of the answers, or where `batch` is 0 of one prompt of PREFILL tokens."""
    made = prompts(batch or 1, PROMPT if batch else PREFILL, seed)
    params = SamplingParams(temperature=0.0, max_tokens=ANSWER if batch else 1, ignore_eos=True)
    began = time.perf_counter()
    llm.generate(made, params)
    return (batch * ANSWER if batch else PREFILL) / (time.perf_counter() - began)


def throughput(model: Path, quantization: str | None, repeats: int) -> dict[str, dict[str, float]]:
    """Medians by cell of both ways, and the ratio pair by pair."""
    threads = len(os.sched_getaffinity(0))
    if threads < 2:
        raise SystemExit("this machine has one core: two ranks need two")
    torch.set_num_threads(2)
    options = {"quantization": quantization, "speculation": "off", "max_model_len": 1024}
    found: dict[str, dict[str, float]] = {}
    with LLM(model, **options) as threaded, LLM(model, tensor_parallel_size=2, **options) as ranked:
        for batch in (0, *BATCHES):
            pairs = []
            for turn in range(repeats + 1):
                order = (threaded, ranked) if turn % 2 else (ranked, threaded)
                rates = {id(llm): speed(llm, batch, 100 * batch + turn) for llm in order}
                pairs.append((rates[id(threaded)], rates[id(ranked)]))
            kept = pairs[1:]  # the first turn warms up
            found["prefill" if not batch else f"batch {batch}"] = {
                "two_threads": statistics.median(one for one, _ in kept),
                "two_ranks": statistics.median(two for _, two in kept),
                "ratio": statistics.median(two / one for one, two in kept),
            }
    return found


def _rank(end: Connection, path: Path, rank: int, hidden: int, rows: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    ours = Collective.open(path, rank, 2)
    assert ours is not None
    found = {}
    for count in rows:
        part = torch.randn(count, hidden).to(torch.bfloat16)
        rounds = []
        for _ in range(ROUNDS):
            ours.all_reduce(part)
            began = time.perf_counter()
            for _ in range(SUMS):
                ours.all_reduce(part)
            rounds.append((time.perf_counter() - began) / SUMS)
        found[count] = statistics.median(rounds)
    end.send(found)


def sums(hidden: int, rows: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Seconds of a sum over two ranks, and the least it could take: one line's way, and the bytes copied twice."""
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "sums"
        Collective.make(path, 2)
        pipes = [context.Pipe() for _ in range(2)]
        ranks = [context.Process(target=_rank, args=(pipes[r][1], path, r, hidden, (1, *rows))) for r in range(2)]
        for rank in ranks:
            rank.start()
        found = pipes[0][0].recv()
        for rank in ranks:
            rank.join()
    rate = copying()
    least = line_seconds()
    return {
        str(count): {
            "microseconds": 1e6 * found[count],
            "least": 1e6 * (least + 3 * count * hidden * 2 / rate),  # write own, read theirs, write the sum
        }
        for count in rows
    }


BALL = """
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <thread>
alignas(128) std::atomic<int> there, back;
void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}
int main(int, char** cores) {
  const int rounds = 200000;
  std::thread other([&] { pin(atoi(cores[2])); for (int i = 1; i <= rounds; i++) { while (there != i); back = i; } });
  pin(atoi(cores[1]));
  const auto began = std::chrono::steady_clock::now();
  for (int i = 1; i <= rounds; i++) { there = i; while (back != i); }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  other.join();
  printf("%.12f", took.count() / rounds / 2);
}
"""


def line_seconds() -> float:
    """Seconds that a line takes from the core that wrote it to the one that reads it."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))[:2]]
    with TemporaryDirectory() as folder:
        program = Path(folder) / "ball"
        compiler = os.environ.get("CXX", "c++")

        compile_ = [compiler, "-O2", "-pthread", "-x", "c++", "-", "-o", str(program)]
        subprocess.run(compile_, input=BALL, text=True, check=True)
        return float(subprocess.run([program, *cores], capture_output=True, text=True, check=True).stdout)


def copying() -> float:
    """Bytes per second that one core moves between two buffers in its second cache."""
    torch.set_num_threads(1)
    source, target = torch.zeros(2, 64 << 10, dtype=torch.uint8)
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(1000):
            target.copy_(source)
        rounds.append(1000 * source.numel() / (time.perf_counter() - began))
    return statistics.median(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", choices=sorted(SHAPES), default=["M"])
    parser.add_argument("--quantization", choices=("none", "int8", "int4"), default="none")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    quiet()
    wanted = None if options.quantization == "none" else options.quantization
    for size in options.size:
        cells = throughput(checkpoint(size), wanted, options.repeats)
        print(f"{size} {options.quantization}: tokens/s   two threads   two ranks   ratio (bar {BAR})")
        for name, cell in cells.items():
            print(f"  {name:20}{cell['two_threads']:15,.0f}{cell['two_ranks']:12,.0f}{cell['ratio']:8.2f}")
        hidden = SHAPES[size][2]["hidden_size"]
        costs = sums(hidden, BATCHES)
        print("  rows of a sum   microseconds   least")
        for rows, cost in costs.items():
            print(f"  {rows:>13}{cost['microseconds']:15.1f}{cost['least']:8.1f}", flush=True)
        path = write(f"tensor_parallel_{size}_{options.quantization}", {"throughput": cells, "sum": costs})
        print(f"  kept in {path}")


if __name__ == "__main__":
    main()
