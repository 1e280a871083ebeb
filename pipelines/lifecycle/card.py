"""The model card: what the model is, how it was made, what it scores. Written from the folder's own files."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from pipelines.lifecycle.data.example import HELD_OUT_PERCENT

CARD = """\
---
language: [en, zh]
pipeline_tag: text-generation
tags: [strata, synthetic, tiny]
---

# Strata starter model

A **small and narrow** decoder of {millions:.1f} million parameters (Qwen3 shape, {layers} layers, width {width},
{vocab} tokens, context {context}), trained from nothing on one CPU core so that the stack has something real to serve
on a bare machine. It is not a general assistant: it knows no facts about the world and writes no prose. What it does:

- sums and differences up to 99, worked sums of three digits, the multiplication table
- exact unit conversion, dates between four formats
- fields of a sentence as JSON, sentiment, topic and intent
- which of the offered tools to call, with which arguments (`<tool_call>{{...}}</tool_call>`)
- short questions about Strata: its commands, settings and errors
- greetings, polite refusals, conversations of a few turns; Chinese and English throughout

Anything else it turns down, or gets wrong. It knows these tasks in the wordings that its data has: a sentence put
quite differently is often refused, a name of unusual letters may be copied wrongly, and differences below zero and
sums of numbers of unlike length are its weakest.

## Scores

Exact match of greedy answers on held-out instances: {held_out} of a hundred instances (number pairs, dates, sets of
names and values, wordings) never occur in training, in either language or any phrasing. For small finite tables
(multiplication, minutes in an hour, facts about Strata, refusals, greetings) a held-out instance is a wording that
training never saw of something that training did teach.

{table}

Answered by: {by}. Repeat it with `python -m pipelines.lifecycle.evaluate models/starter`.

## Training

{training}

![loss](loss_curve.svg)

{notes}The data is synthetic: `pipelines/lifecycle/data` makes it from a seed.
`python -m pipelines.lifecycle.train --out runs/starter` trains such a model again.
"""


def write_card(folder: Path) -> None:
    """README.md from config.json, evaluation.json and training.json (where there is one)."""
    config, evaluation = load(folder / "config.json"), load(folder / "evaluation.json")
    training = folder / "training.json"
    run = load(training) if training.exists() else {}
    text = CARD.format(
        millions=parameters(folder / "model.safetensors") / 1e6,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        vocab=config["vocab_size"],
        context=config["max_position_embeddings"],
        held_out=HELD_OUT_PERCENT,
        table=table(evaluation["tasks"]),
        by={"strata": "Strata's own engine, bfloat16", "transformers": "Hugging Face generate, bfloat16"}[
            evaluation["answered_by"]
        ],
        training=describe(run) if run else "Not recorded.",
        notes="".join(f"{note}\n\n" for note in run.get("notes", ())),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """A JSON object."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def parameters(weights: Path) -> int:
    """How many numbers a weights file holds."""
    total = 0
    with safe_open(weights, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  it is no dict
            count = 1
            for length in file.get_slice(name).get_shape():
                count *= length
            total += count
    return total


def table(tasks: dict[str, dict[str, Any]]) -> str:
    """The scores as Markdown."""
    lines = ["| task | right | asked | exact match |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {name} | {s['right']} | {s['asked']} | {s['percent']:.1f} % |" for name, s in tasks.items()]
    return "\n".join(lines)


def describe(training: dict[str, Any]) -> str:
    """How the run went."""
    return (
        f"{training['steps']} steps of {training['tokens_per_step']} tokens: Muon for matrices, Adam for the rest,\n"
        "bfloat16 with float32 master weights, "
        f"DeepSpeed ZeRO stage {training['zero_stage']} under Ray Train with {training['workers']} worker(s),\n"
        f"seed {training['seed']}. Training loss at the end: {training['loss']:.4f}."
    )
