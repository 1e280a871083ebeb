"""What do guessed tokens bring: copying work and free text with guesses off, by lookup, and by a draft model, in turns?

    python -m benchmarks.speculation [--batch 1 8 32] [--work extraction summary dialogue noise] [--rounds N]

The target has 125 M parameters' shape and cost and the skill of a model of 5.5 M (see `benchmarks.copying_models`),
the draft 3.9 M. Extraction and summaries are held-out questions that it was taught to answer, greedily; dialogue is
what it says to the starter's own questions at temperature 1; noise is 96 tokens at temperature 5, of which no guess
comes true: what it costs to find that out. Every round has questions of its own, so prompts are computed, and each way
answers them in turn. Seconds are those of whole answers, prompts included. `right`: answers that are what was taught.
`equal`: answers that are the same all three ways; bfloat16 rounds one row otherwise than eight, and an answer parts
where two tokens are all but as likely. In float32 all are equal, which the tests hold. Adds to
results/speculation.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from actors.engine import LLM, SamplingParams
from benchmarks.copying import HELD_OUT_SEED, TASKS
from benchmarks.copying_models import models
from benchmarks.record import RESULTS, quiet, write
from pipelines.lifecycle.conversation import prompt
from pipelines.lifecycle.data import about, dialogue
from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Turn
from pipelines.lifecycle.tokenizer import load_tokenizer

WAYS = ("off", "ngram", "draft")
GREEDY = SamplingParams(temperature=0.0, max_tokens=256)
PARAMS = {
    "dialogue": SamplingParams(temperature=1.0, max_tokens=256, seed=1),
    "noise": SamplingParams(temperature=5.0, max_tokens=96, ignore_eos=True, seed=1),
}
REQUESTS = {1: 4, 8: 8, 32: 32}  # in a round, by batch


def questions(work: str, count: int, rounds: int) -> list[list[tuple[Turn, ...]]]:
    """Turns for each round; the last is the answer that was taught."""
    dice = Dice(HELD_OUT_SEED)
    draw = TASKS.get(work, lambda dice: dice.pick((about, dialogue)).draw(dice).turns)
    return [[draw(dice) for _ in range(count)] for _ in range(rounds)]


def timed(llm: LLM, prompts: Sequence[list[int]], batch: int, params: SamplingParams) -> tuple[list[list[int]], float]:
    """The answers and seconds."""
    answers: list[list[int]] = []
    waiting = iter(prompts)
    began = time.perf_counter()
    while part := list(islice(waiting, batch)):
        answers += [output.outputs[0].token_ids for output in llm.generate(part, params)]
    return answers, time.perf_counter() - began


def measure(llms: dict[str, LLM], work: str, batch: int, rounds: int) -> dict[str, float]:
    """Medians over rounds, of which a first one more is left out."""
    tokenizer = load_tokenizer(Path(models()[0]))
    params = PARAMS.get(work, GREEDY)
    rates: dict[str, list[float]] = {way: [] for way in llms}
    speedups: dict[str, list[float]] = {way: [] for way in llms}
    equal = right = total = 0
    for number, asked in enumerate(questions(work, REQUESTS[batch], rounds + 1)):
        prompts = [tokenizer.encode(prompt(turns, None, ())).ids for turns in asked]
        seconds, answers, steps = {}, {}, {}
        for way in WAYS[number % 3 :] + WAYS[: number % 3]:
            first = llms[way].engine.steps
            answers[way], seconds[way] = timed(llms[way], prompts, batch, params)
            steps[way] = llms[way].engine.steps - first
        if not number:
            continue
        made = sum(map(len, answers["off"]))
        for way in WAYS:
            rates[way].append(sum(map(len, answers[way])) / seconds[way])
            speedups[way].append(rates[way][-1] / rates["off"][-1])
        total += len(asked)
        equal += sum(one == two == three for one, two, three in zip(*(answers[way] for way in WAYS), strict=True))
        right += sum(
            tokenizer.decode(answer) == turns[-1][1] for answer, turns in zip(answers["off"], asked, strict=True)
        )
    row = {"tokens_per_answer": made / len(asked), "equal": equal / total, "right": right / total}
    for way in WAYS:
        row[f"{way}_tokens_per_second"] = statistics.median(rates[way])
        row[f"{way}_speedup"] = statistics.median(speedups[way])
        row[f"{way}_tokens_per_step"] = sum(map(len, answers[way])) / steps[way]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--work", nargs="+", default=[*TASKS, *PARAMS])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    target, draft = models()
    quiet()
    llms = {
        way: LLM(target, speculation=way, draft_model=draft if way == "draft" else None, kv_cache_tokens=20_480, seed=0)
        for way in WAYS
    }
    file = RESULTS / "speculation.json"
    rows = json.loads(file.read_text()).get("rows", {}) if file.exists() else {}
    print(f"{'':24}{'off':>8}{'ngram':>8}{'draft':>8}{'ngram':>9}{'draft':>9}{'equal':>8}{'right':>8}")
    for work in options.work:
        for batch in options.batch:
            row = rows[f"{work}, batch {batch}"] = measure(llms, work, batch, options.rounds)
            rates = "".join(f"{row[f'{way}_tokens_per_second']:8.0f}" for way in WAYS)
            gains = "".join(f"{row[f'{way}_speedup']:8.2f}x" for way in WAYS[1:])
            print(f"{f'{work}, batch {batch}':24}{rates}{gains}{row['equal']:8.1%}{row['right']:8.1%}", flush=True)
            facts = {"target": "125 M shape, bfloat16", "draft": "3.9 M", "threads": torch.get_num_threads()}
            write("speculation", {**facts, "rows": rows})


if __name__ == "__main__":
    main()
