"""What do the pages of a step's activations cost a prompt, fresh from the system or kept by malloc?

    python -m benchmarks.freed_pages [--size S|M|L] [--quantization int8|int4] [--seconds N] [--rounds N]

Prompts of 512 tokens one after the other, each way in a process of its own, the ways in turns: `fresh` is as the engine
is; `kept` has malloc keep all that is freed, from before the weights are loaded on, what loading frees among it.
Medians of tokens a second, pages that a prompt met for the first time, megabytes at the peak. Writes
results/freed_pages_SIZE_QUANTIZATION.json.
"""

import argparse
import ctypes
import json
import resource
import statistics
import subprocess
import sys
import time
from random import Random

from benchmarks.peers.checkpoint import checkpoint
from benchmarks.record import quiet, write

WAYS, PROMPT = ("fresh", "kept"), 512
KEPT = {-3: 1 << 30, -1: 1 << 30, -2: 64 << 20}  # glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD: bytes


def measured(size: str, quantization: str | None, way: str, seconds: float) -> dict[str, float]:
    """In this process."""
    from actors.engine import LLM, SamplingParams

    for option, size_ in KEPT.items() if way == "kept" else ():
        ctypes.CDLL(None).mallopt(option, size_)
    with LLM(checkpoint(size), quantization=quantization, max_num_seqs=1, enable_prefix_caching=False) as llm:
        dice, params = Random(1), SamplingParams(max_tokens=1, temperature=0.0)

        def ask() -> None:
            llm.generate([[dice.randrange(10, 30_000) for _ in range(PROMPT)]], params)

        ask()
        before, begun, count = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            ask()
            count += 1
        took, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        tokens = PROMPT * count / took
        return {"tokens": tokens, "pages": (used.ru_minflt - before) / count, "peak_mb": used.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="M", choices="SML")
    parser.add_argument("--quantization", choices=("int8", "int4"))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure this one here, and print it")
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measured(asked.size, asked.quantization, asked.way, asked.seconds)))
        return
    quiet()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn in range(asked.rounds):
        for way in sorted(WAYS, reverse=bool(turn % 2)):
            command = [sys.executable, "-m", "benchmarks.freed_pages", *sys.argv[1:], "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {
        way: {name: statistics.median(one[name] for one in all_) for name in all_[0]} for way, all_ in found.items()
    }
    for way, row in rows.items():
        print(f"{way:7} {row['tokens']:,.0f} tokens/s  {row['pages']:.0f} pages a prompt  {row['peak_mb']:,.0f} MB")
    print(write(f"freed_pages_{asked.size}_{asked.quantization or 'none'}", {"prompt": PROMPT, "rows": rows}))


if __name__ == "__main__":
    main()
