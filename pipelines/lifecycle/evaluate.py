"""Score a model folder on the held-out set: `python -m pipelines.lifecycle.evaluate MODEL_DIR`.

Prints a table, writes evaluation.json beside the model and the table into its model card. Answers come from Strata's
own engine or, with `--with transformers`, from Hugging Face's generate; both decode greedily.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.lifecycle.card import write_card
from pipelines.lifecycle.conversation import prompt
from pipelines.lifecycle.data.example import Example
from pipelines.lifecycle.data.mixture import held_out_set
from pipelines.lifecycle.folder import write_json
from pipelines.lifecycle.score import Score, score
from pipelines.lifecycle.tokenizer import load_tokenizer

LONGEST_ANSWER = 120
Answer = Callable[[Path, Sequence[str]], list[str]]  # model folder, prompts -> answers


def main(arguments: list[str] | None = None) -> None:
    """Read the flags and score."""
    flags = argparse.ArgumentParser(prog="python -m pipelines.lifecycle.evaluate", description=__doc__)
    flags.add_argument("model", type=Path, help="a model folder")
    flags.add_argument("--per-task", type=int, default=300, help="held-out examples of each task")
    flags.add_argument("--with", dest="by", choices=tuple(ANSWERS), default="strata")
    flags.add_argument("--kv-cache-dtype", default="auto", help="of Strata's engine: auto or int8")
    flags.add_argument("--show-wrong", type=int, default=0, help="wrong answers to print of each task")
    flags.add_argument("--no-card", action="store_true", help="leave the model folder as it is")
    given = flags.parse_args(arguments)
    began = time.monotonic()
    answer = partial(by_strata, kv_cache_dtype=given.kv_cache_dtype) if given.by == "strata" else ANSWERS[given.by]
    scores = evaluate(given.model, held_out_set(given.per_task), answer)
    report(scores, given.show_wrong, f"{given.model} by {given.by}, {time.monotonic() - began:.0f} s")
    if not given.no_card:
        write_json(given.model / "evaluation.json", summary(scores, given.by))
        write_card(given.model)


def evaluate(model: Path, examples: Sequence[Example], answer: Answer) -> list[Score]:
    """Scores of a model folder on examples."""
    return score(examples, answer(model, [prompt(e.turns, None, e.tools) for e in examples]))


def by_strata(model: Path, prompts: Sequence[str], kv_cache_dtype: str = "auto") -> list[str]:
    """Answers of Strata's engine."""
    from actors.engine import LLM, SamplingParams  # noqa: PLC0415  torch is paid for only here

    tokenizer = load_tokenizer(model)
    tokens = [tokenizer.encode(text).ids for text in prompts]  # as text, the engine takes marks for mere words
    params = SamplingParams(temperature=0.0, max_tokens=LONGEST_ANSWER)
    with LLM(model=str(model), dtype="bfloat16", kv_cache_dtype=kv_cache_dtype) as llm:
        return [output.outputs[0].text for output in llm.generate(tokens, params)]


def by_transformers(model: Path, prompts: Sequence[str]) -> list[str]:
    """Answers of Hugging Face's generate, in batches of like length."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    answers: dict[int, str] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        batch = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            made = network.generate(**batch, do_sample=False, max_new_tokens=LONGEST_ANSWER)
        fresh = made[:, batch["input_ids"].shape[1] :]
        answers |= zip(chosen, tokenizer.batch_decode(fresh, skip_special_tokens=True), strict=True)
    return [answers[i] for i in range(len(prompts))]


ANSWERS: dict[str, Answer] = {"strata": by_strata, "transformers": by_transformers}


def report(scores: Sequence[Score], show_wrong: int, title: str) -> None:
    """The table on the terminal."""
    table = Table("task", "right", "asked", "exact match", title=title)
    for line in scores:
        table.add_row(line.task, str(line.right), str(line.asked), f"{line.percent:.1f} %")
    Console().print(table)
    for line in scores:
        for question, expected, given in line.wrong[:show_wrong]:
            sys.stdout.write(f"{line.task}: {question!r}\n   expected {expected!r}\n   given    {given!r}\n")


def summary(scores: Sequence[Score], by: str) -> dict[str, object]:
    """What evaluation.json holds."""
    tasks = {s.task: {"right": s.right, "asked": s.asked, "percent": round(s.percent, 1)} for s in scores}
    return {"metric": "exact match, greedy", "answered_by": by, "tasks": tasks}


if __name__ == "__main__":
    main()
