"""What does it cost a step to draw a token for each of 32 sequences, beside torch's operators?

    python -m benchmarks.sampling [--threads N]

Milliseconds for 32 rows of logits, medians of 40, of vocabularies of 32,000 and of 151,936 tokens (Qwen's): the sampler
of the engine with its state of each sequence, and what Hugging Face's `generate` does to them (its processors
and warpers in the order in which it makes them, softmax, multinomial). Logits are normal with a deviation of 3. Writes
results/sampling.json.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from actors.engine import SamplingParams
from actors.engine.sampler import Sampler
from benchmarks.record import quiet, write

ROWS, TIMES, PROMPT = 32, 40, 512
VOCABULARIES = (32_000, 151_936)
WAYS = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.8},
    "top_p": {"temperature": 0.7, "top_p": 0.9},
    "top_k and top_p": {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
    "min_p": {"temperature": 1.0, "min_p": 0.05},
    "repetition_penalty and top_p": {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1},
    "temperature, 5 logprobs": {"temperature": 0.8, "logprobs": 5},
}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    threads = parser.parse_args().threads
    load_before = quiet()
    torch.set_num_threads(threads)
    rows = [measured(vocab, name, wanted) for vocab in VOCABULARIES for name, wanted in WAYS.items()]
    result = {"question": __doc__.splitlines()[0], "threads": threads, "sequences": ROWS, "rows": rows}
    write("sampling", result, load_before=load_before)


def measured(vocab: int, name: str, wanted: dict[str, float]) -> dict[str, object]:
    """One vocabulary and one way to draw, in milliseconds of a step."""
    made = torch.Generator().manual_seed(0)
    logits = [torch.randn(ROWS, vocab, generator=made) * 3 for _ in range(4)]
    prompt = torch.randint(3, vocab, (ROWS, PROMPT), generator=made)
    own = Sampler(vocab, ROWS, (1,))
    for slot in range(ROWS):
        own.join(slot, SamplingParams(max_tokens=10_000, **wanted), slot, 0, tuple(prompt[slot].tolist()), ())
    theirs = warpers(wanted)

    def of_torch(scores: torch.Tensor) -> None:
        changed = theirs(prompt, scores)
        if "logprobs" in wanted:
            torch.topk(torch.log_softmax(scores, -1), int(wanted["logprobs"]))
        if wanted["temperature"]:
            torch.multinomial(torch.softmax(changed, -1), 1)
        else:
            changed.argmax(-1)

    slots = list(range(ROWS))
    ours, torchs = took(lambda scores: own.sample(scores, slots), logits), took(of_torch, logits)
    row = {"vocabulary": vocab, "way": name, "ms": round(ours, 2), "torch_ms": round(torchs, 2)}
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def warpers(wanted: dict[str, float]) -> LogitsProcessorList:
    """Hugging Face's, for the same wishes."""
    made = LogitsProcessorList()
    if "repetition_penalty" in wanted:
        made.append(RepetitionPenaltyLogitsProcessor(wanted["repetition_penalty"]))
    if wanted["temperature"]:
        made.append(TemperatureLogitsWarper(wanted["temperature"]))
    if "top_k" in wanted:
        made.append(TopKLogitsWarper(int(wanted["top_k"])))
    if "top_p" in wanted:
        made.append(TopPLogitsWarper(wanted["top_p"]))
    if "min_p" in wanted:
        made.append(MinPLogitsWarper(wanted["min_p"]))
    return made


def took(draw: Callable[[torch.Tensor], object], logits: list[torch.Tensor]) -> float:
    """The median in milliseconds."""
    times = []
    for turn in range(TIMES):
        begun = time.perf_counter()
        draw(logits[turn % len(logits)])
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    main()
