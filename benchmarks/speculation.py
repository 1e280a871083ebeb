"""What do guessed tokens bring: the starter model's held-out tasks with guessing on and off, in turns?

    python -m benchmarks.speculation [--per-task N] [--rounds N]

Tokens per second and tokens per step, task by task at batch 1, and of all tasks together at batch 8 and 32, where a
guess has to compete with other rows. Answers have to be equal. Writes results/speculation.json.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from actors.engine import LLM, SamplingParams
from benchmarks.record import quiet, write
from pipelines.lifecycle.conversation import prompt
from pipelines.lifecycle.data.mixture import held_out_set
from pipelines.lifecycle.tokenizer import load_tokenizer

STARTER = Path("models/starter")
PARAMS = SamplingParams(temperature=0.0, max_tokens=120)


def timed(llm: LLM, prompts: Sequence[list[int]], batch: int) -> tuple[list[list[int]], float, int]:
    """The answers, seconds and forward passes."""
    answers: list[list[int]] = []
    began, first = time.perf_counter(), llm.engine.steps
    for at in range(0, len(prompts), batch):
        outputs = llm.generate(prompts[at : at + batch], PARAMS)
        answers += [output.outputs[0].token_ids for output in outputs]
    return answers, time.perf_counter() - began, llm.engine.steps - first


def measure(prompts: Sequence[list[int]], batch: int, rounds: int) -> dict[str, float]:
    """Both ways in turns, the best of `rounds` of each; caches of prefixes are filled by the first."""
    best: dict[str, float] = {}
    answers: dict[str, list[list[int]]] = {}
    steps: dict[str, int] = {}
    with LLM(STARTER, speculation="off") as plain, LLM(STARTER) as guessing:
        for number in range(rounds + 1):
            for name, llm in (("off", plain), ("ngram", guessing)):
                answers[name], seconds, steps[name] = timed(llm, prompts, batch)
                if number:
                    best[name] = min(best.get(name, seconds), seconds)
    tokens = sum(map(len, answers["off"]))
    return {
        "tokens": tokens,
        "off_tokens_per_second": tokens / best["off"],
        "ngram_tokens_per_second": tokens / best["ngram"],
        "speedup": best["off"] / best["ngram"],
        "steps_saved": 1 - steps["ngram"] / steps["off"],
        "equal_answers": sum(a == b for a, b in zip(answers["off"], answers["ngram"], strict=True)) / len(prompts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-task", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet()
    tokenizer = load_tokenizer(STARTER)
    tasks: dict[str, list[list[int]]] = {}
    for example in held_out_set(options.per_task):
        tasks.setdefault(example.task, []).append(tokenizer.encode(prompt(example.turns, None, example.tools)).ids)
    everything = [tokens for prompts in tasks.values() for tokens in prompts]
    rows = {}
    print(f"{'':26}{'tokens/s':>10}{'guessing':>10}{'speed-up':>10}{'fewer steps':>13}{'equal':>8}")
    loads = [(f"{task}, batch 1", prompts, 1) for task, prompts in tasks.items()]
    loads += [(f"all, batch {batch}", everything, batch) for batch in (8, 32)]
    for name, prompts, batch in loads:
        row = rows[name] = measure(prompts, batch, options.rounds)
        print(
            f"{name:26}{row['off_tokens_per_second']:10.0f}{row['ngram_tokens_per_second']:10.0f}"
            f"{row['speedup']:9.2f}x{row['steps_saved']:13.0%}{row['equal_answers']:8.1%}",
            flush=True,
        )
    print(f"kept in {write('speculation', {'model': STARTER.name, 'rows': rows})}")


if __name__ == "__main__":
    main()
