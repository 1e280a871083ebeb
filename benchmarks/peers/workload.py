"""What every engine is asked to do, and how it reports. Plain Python: peers import it in their own environments.

An engine is a function `generate(prompts, new_tokens)` that answers greedily and ignores end tokens. Prompts are
fresh random ids each time, so that no prefix cache helps anyone.
"""

import json
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

VOCABULARY = 32_000
PREFILL_TOKENS = 512
PROMPT_TOKENS = 64
NEW_TOKENS = 128
BATCHES = (1, 8, 32)

Generate = Callable[[Sequence[Sequence[int]], int], object]


@dataclass(frozen=True)
class Order:
    """What the benchmark tells an engine's process."""

    path: str
    threads: int
    repeats: int
    seed: int
    quantization: str | None = None  # for engines that quantize while they load


def serve(load: Callable[[Order], tuple[Generate, dict[str, str]]]) -> None:
    """Read an Order from the command line, measure, print one line of JSON."""
    order = Order(**json.loads(sys.argv[1]))
    begun = time.perf_counter()
    generate, versions = load(order)
    loaded = time.perf_counter() - begun
    random.seed(order.seed)
    _timed(generate, 1, PROMPT_TOKENS, 8)  # first calls compile, pack or page in
    figures: dict[str, list[float]] = {}
    for _ in range(order.repeats):
        seconds = _timed(generate, 1, PREFILL_TOKENS, 1)
        figures.setdefault("prefill", []).append(PREFILL_TOKENS / seconds)
        for batch in BATCHES:
            seconds = _timed(generate, batch, PROMPT_TOKENS, NEW_TOKENS)
            figures.setdefault(f"b{batch}", []).append(batch * NEW_TOKENS / seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"figures": figures, "load_seconds": loaded, "peak_mb": peak, "versions": versions}))


def argument(order: Order) -> str:
    """`order` for the command line."""
    return json.dumps(asdict(order))


def _timed(generate: Generate, batch: int, prompt_tokens: int, new_tokens: int) -> float:
    prompts = [[random.randrange(10, VOCABULARY) for _ in range(prompt_tokens)] for _ in range(batch)]
    begun = time.perf_counter()
    generate(prompts, new_tokens)
    return time.perf_counter() - begun
