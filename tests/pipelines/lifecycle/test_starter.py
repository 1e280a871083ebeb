"""The shipped model folder: whole, small, honest about itself, and as good as its card says."""

import json
from pathlib import Path

import pytest

from pipelines.lifecycle.conversation import TEMPLATE
from pipelines.lifecycle.data.mixture import NAMES, held_out_set
from pipelines.lifecycle.evaluate import ANSWERS, evaluate

STARTER = Path(__file__).parents[3] / "models" / "starter"


def test_the_folder_is_whole_and_small():
    names = {path.name for path in STARTER.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {"tokenizer_config.json", "chat_template.jinja", "README.md", "loss_curve.svg", "evaluation.json"} <= names
    assert (STARTER / "model.safetensors").stat().st_size <= 40 * 2**20


def test_it_speaks_the_chat_form_that_it_was_trained_on():
    assert (STARTER / "chat_template.jinja").read_text(encoding="utf-8") == TEMPLATE


def test_the_card_shows_the_evaluation():
    tasks = json.loads((STARTER / "evaluation.json").read_text(encoding="utf-8"))["tasks"]
    card = (STARTER / "README.md").read_text(encoding="utf-8")
    assert set(tasks) == {*NAMES, "all"}
    assert tasks["all"]["percent"] >= 90
    assert all(f"| {name} | {s['right']} | {s['asked']} | {s['percent']:.1f} % |" in card for name, s in tasks.items())


@pytest.mark.slow
@pytest.mark.parametrize("by", sorted(ANSWERS))
def test_it_answers_held_out_questions(by):
    scores = evaluate(STARTER, held_out_set(12), ANSWERS[by])
    assert scores[-1].percent >= 90, [line for line in scores if line.percent < 90]
