"""How much faster does a model decode, and how much memory do its weights take, in bf16, 8 and 4 bits than in float32?

    python -m benchmarks.precisions [--model S|M|L|FOLDER] [--batch N ...] [--rounds N] [--threads N]

The same prompts of 64 tokens and 64 more, greedy, without guesses, all precisions in turns, forwards and backwards:
tokens per second of decoding alone, medians, and the weights in memory as a share of float32's. Writes
results/precisions_MODEL.json.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from actors.engine import LLM, SamplingParams
from actors.engine.plan import Plan, Result
from benchmarks.peers.checkpoint import SHAPES, checkpoint
from benchmarks.record import quiet, write

PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "int4": {"dtype": "bfloat16", "quantization": "int4"},
}
PROMPT, TOKENS = 64, 64


class Timed:
    """An engine's executor; `seconds` and `tokens` of what only decoded."""

    def __init__(self, executor: Any) -> None:
        self._executor, self.seconds, self.tokens = executor, 0.0, 0
        self.check, self.interrupt = executor.check, executor.interrupt

    def execute(self, plan: Plan) -> Result:
        begun = time.perf_counter()
        result: Result = self._executor.execute(plan)
        if plan.decodes == len(plan.slots):
            self.seconds += time.perf_counter() - begun
            self.tokens += len(result.tokens)
        return result


def rate(llm: LLM, batch: int) -> float:
    """Tokens per second of a batch's decoding."""
    timed = llm.engine.executor = Timed(llm.engine.executor)
    prompts = [[10 + (row * 977 + place * 31) % 3000 for place in range(PROMPT)] for row in range(batch)]
    llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True))
    llm.engine.executor = timed._executor
    return timed.tokens / timed.seconds


def weights(llm: LLM) -> int:
    """Bytes of all matrices, each counted once."""
    decoder = llm.engine.executor.execute.__self__._model
    found = {}
    for layer in decoder.layers:
        for linear in (layer.qkv, layer.output, layer.gate_up, layer.down):
            found[id(linear.weight)] = linear.weight
    for matrix in (decoder.embedding, decoder.head.weight):
        found[id(matrix)] = matrix
    memories = [getattr(weight, "memory", weight) for weight in found.values()]
    return sum(memory.numel() * memory.element_size() for memory in memories)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="M")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    load = quiet()
    torch.set_num_threads(options.threads)
    folder = checkpoint(options.model) if options.model in SHAPES else Path(options.model)
    models = {
        name: LLM(folder, speculation="off", enable_prefix_caching=False, **way) for name, way in PRECISIONS.items()
    }
    found: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in options.batch} for name in models}
    for llm in models.values():
        rate(llm, 1)
    for turn in range(options.rounds):
        for batch in options.batch:
            for name in list(models)[:: 1 if turn % 2 == 0 else -1]:
                found[name][batch].append(rate(models[name], batch))
    sizes = {name: weights(llm) for name, llm in models.items()}
    rows = {}
    for name, batches in found.items():
        rows[name] = {
            "weights_bytes": sizes[name],
            "weights_share": sizes[name] / sizes["float32"],
            "tokens_per_second": {batch: statistics.median(rates) for batch, rates in batches.items()},
            "over_float32": {
                batch: statistics.median(
                    mine / other for mine, other in zip(rates, found["float32"][batch], strict=True)
                )
                for batch, rates in batches.items()
            },
        }
        print(name, rows[name])
    result = {"question": __doc__.splitlines()[0], "model": folder.name, "precisions": rows}
    print(f"kept in {write(f'precisions_{folder.name}', result, load_before=load, threads=options.threads)}")


if __name__ == "__main__":
    main()
