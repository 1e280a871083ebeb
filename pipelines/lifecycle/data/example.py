"""One training conversation, and which side of the split it is on.

The split is decided by the instance (the numbers, the names, the words), not by the drawing order: an instance that
is held out is held out in both languages and in every phrasing.
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

from pipelines.lifecycle.data.dice import digest

HELD_OUT_PERCENT = 6

Turn = tuple[str, str]  # role, content


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that ends with the assistant's answer.

    `key` is the instance that it asks for; `also` are instances of other tasks that it shows on the way, so that a
    conversation which gives a held-out answer away is kept out of training.
    """

    task: str
    key: str
    turns: tuple[Turn, ...]
    also: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def trainable(self) -> bool:
        """Whether training may see it."""
        return not any(held_out(key) for key in (self.key, *self.also))

    @property
    def scored(self) -> bool:
        """Whether it belongs to the held-out set."""
        return held_out(self.key)

    @property
    def answer(self) -> str:
        """What is expected of the model."""
        return self.turns[-1][1]


def ask(task: str, key: str, question: str, answer: str, tools: tuple[dict[str, Any], ...] = ()) -> Example:
    """A conversation of one question."""
    return Example(task, f"{task}:{key}", (("user", question), ("assistant", answer)), (), tools)


def ask_text(task: str, question: str, answer: str) -> Example:
    """A question of a finite table, whose instance is its own wording (case, space and punctuation apart)."""
    return ask(task, wording(question), question, answer)


def wording(text: str) -> str:
    """The letters and digits of `text` alone, in lower case."""
    return "".join(c for c in text.lower() if unicodedata.category(c)[0] in "LN")


def held_out(key: str) -> bool:
    """Whether an instance belongs to the held-out set."""
    return digest(key) % 100 < HELD_OUT_PERCENT
