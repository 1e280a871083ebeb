"""Choices are judged by how likely the model finds each, a token at a time."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from actors.engine.tokens import Tokenizer
from pipelines.lifecycle.answering import likeliest
from pipelines.lifecycle.exam import Choice

STARTER = str(Path(__file__).parents[3] / "models" / "starter")
ASKED = ({"role": "user", "content": "What is 7 times 8?"},)
SAID = ("7 × 8 = 56", "7 × 8 = 65", "It may be any number that you like", "56", "8 × 7")


def test_the_likeliest_choice_is_what_the_model_would_say() -> None:
    for turn in range(len(SAID)):
        choices = SAID[turn:] + SAID[:turn]
        assert likeliest(STARTER, [Choice(ASKED, choices, 0)]) == [choices.index(SAID[0])]


def test_a_long_choice_is_as_likely_as_its_tokens_are_on_average() -> None:
    """Against the definition: one token after the other, each from a forward of its own."""
    tokenizer = Tokenizer.from_folder(STARTER)
    network = AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32).eval()

    def by_definition(choice: str) -> float:
        known, logs = list(tokenizer.chat(list(ASKED))), []
        for token in tokenizer.encode(choice):
            with torch.inference_mode():
                logs.append(float(network(torch.tensor([known])).logits[0, -1].log_softmax(-1)[token]))
            known.append(token)
        return sum(logs) / len(logs)

    worth = {choice: by_definition(choice) for choice in SAID}
    pairs = [(one, other) for one in SAID for other in SAID if one != other]
    found = likeliest(STARTER, [Choice(ASKED, pair, 0) for pair in pairs])
    assert found == [int(worth[other] > worth[one]) for one, other in pairs]
    assert len(set(found)) == 2
