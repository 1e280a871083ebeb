"""What do the pages of a KV cache cost a prompt: made by its steps, made ahead of them, or there from before?

    python -m benchmarks.fresh_pages [--size S|M|L] [--quantization int8|int4] [--prompts N] [--rounds N]

Prompts of 512 tokens with a pause after each, each way in a process of its own, the ways in turns. `touched`: a page is
made when a step first writes to it; `ahead`: as the engine is; `used`: a cache so small that all of it was used before.
Medians of tokens a second while a prompt is computed, pages that it met for the first time, megabytes at the peak.
Writes results/fresh_pages_SIZE_QUANTIZATION.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from random import Random

from benchmarks.peers.checkpoint import checkpoint
from benchmarks.record import quiet, write

WAYS = ("touched", "ahead", "used")
PROMPT, SMALL = 512, 4096  # tokens: of a prompt, and of a cache that is used up by the first few
WARM, PAUSE_SECONDS = 8, 0.05


def measured(size: str, quantization: str | None, way: str, prompts: int) -> dict[str, float]:
    """In this process."""
    from actors.engine import LLM, SamplingParams
    from actors.models import ahead

    if way == "touched":
        ahead.AHEAD_TOKENS = 0
    cache = SMALL if way == "used" else None
    with LLM(checkpoint(size), quantization=quantization, kv_cache_tokens=cache) as llm:
        dice, params = Random(1), SamplingParams(max_tokens=1, temperature=0.0)

        def ask() -> tuple[float, int]:
            asked = [dice.randrange(10, 30_000) for _ in range(PROMPT)]
            before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            llm.generate([asked], params)
            took = time.perf_counter() - begun
            return PROMPT / took, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        found = []
        for _ in range(WARM + prompts):
            found.append(ask())
            time.sleep(PAUSE_SECONDS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rates, pages = zip(*found[WARM:], strict=True)
    return {"tokens": statistics.median(rates), "pages": statistics.mean(pages), "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="M", choices="SML")
    parser.add_argument("--quantization", choices=("int8", "int4"))
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="measure this one here, and print it")
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measured(asked.size, asked.quantization, asked.way, asked.prompts)))
        return
    quiet()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn in range(asked.rounds):
        for way in WAYS[:: -1 if turn % 2 else 1]:
            command = [sys.executable, "-m", "benchmarks.fresh_pages", *sys.argv[1:], "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {
        way: {name: statistics.median(one[name] for one in all_) for name in all_[0]} for way, all_ in found.items()
    }
    for way, row in rows.items():
        print(f"{way:8} {row['tokens']:,.0f} tokens/s  {row['pages']:.0f} pages a prompt  {row['peak_mb']:,.0f} MB")
    print(write(f"fresh_pages_{asked.size}_{asked.quantization or 'none'}", {"prompt": PROMPT, "rows": rows}))


if __name__ == "__main__":
    main()
