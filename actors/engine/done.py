"""What rank 0 has drawn of a plan so far, and the word that it sends to the other ranks between two steps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from actors.engine.drafts import MOST
from actors.engine.plan import Result
from actors.engine.sampler import Sampler
from actors.messages import TokenLogprob

Rows = Sequence[Sequence[int] | np.ndarray]  # a few tokens for each row of a plan

_WIDTH = 2 * MOST + 3  # how many drawn, room for a guess and one more, how many guessed, room for a guess


@dataclass(slots=True)
class Done:
    """Row by row. `last`: what the last step drew."""

    rows: int
    steps: int = 0
    tokens: list[list[int]] = field(init=False)
    logprobs: list[list[TokenLogprob | None]] = field(init=False)
    last: list[list[int]] = field(init=False)
    faulty: list[int] = field(default_factory=list)  # rows whose last token is none
    stuck: list[int] = field(default_factory=list)  # those of them that a constraint left no way
    sample_seconds: float = 0.0
    load_seconds: float = 0.0
    lost: tuple[int, ...] = ()  # places of the store

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in range(self.rows)]
        self.logprobs = [[] for _ in range(self.rows)]
        self.last = [[] for _ in range(self.rows)]

    def draw(self, sampler: Sampler, logits: torch.Tensor, slots: list[int], rows: list[int]) -> list[int]:
        """One token for each of `slots`, which are `rows` of the plan."""
        began = time.perf_counter()
        sampled = sampler.sample(logits, slots)
        self.sample_seconds += time.perf_counter() - began
        for row, token, logprob in zip(rows, sampled.tokens, sampled.logprobs, strict=True):
            self.tokens[row].append(token)
            self.last[row].append(token)
            self.logprobs[row].append(logprob)
        self.faulty += [rows[index] for index in sampled.faulty]
        self.stuck += [rows[index] for index in sampled.stuck]
        return sampled.tokens

    def result(self, number: int, seconds: float) -> Result:
        """For the leader; the plan took `seconds` in all."""
        logprobs = [told for row in self.logprobs for told in row]
        return Result(
            number,
            [token for row in self.tokens for token in row],
            logprobs if any(told is not None for told in logprobs) else None,
            seconds - self.sample_seconds,
            self.sample_seconds,
            faulty=tuple(self.faulty),
            steps=self.steps,
            stuck=tuple(self.stuck),
            counts=tuple(len(row) for row in self.tokens),
            load_seconds=self.load_seconds,
            lost=self.lost,
        )


def word_size(rows: int, speculates: bool) -> int:
    """How many numbers a word has."""
    return 1 + rows * (_WIDTH if speculates else 1)


def pack_word(over: bool, drawn: Rows, guesses: Rows, speculates: bool) -> list[int]:
    """`over`: no step follows. Without guesses every row has drawn exactly one token, or there is nothing to go on."""
    word = [int(over)]
    for row, tokens in enumerate(drawn):
        if not speculates:
            word.append(tokens[0])
            continue
        guess = guesses[row]
        word += [len(tokens), *tokens, *[0] * (MOST + 1 - len(tokens))]
        word += [len(guess), *(int(token) for token in guess), *[0] * (MOST - len(guess))]
    return word


def unpack_word(word: list[int], rows: int, speculates: bool) -> tuple[bool, Rows, Rows]:
    """Undo `pack_word`: whether it is over, what was drawn, what is guessed."""
    over, *rest = word
    if not speculates:
        return bool(over), [[token] for token in rest], [[]] * rows
    drawn, guesses = [], []
    for at in range(0, rows * _WIDTH, _WIDTH):
        drawn.append(rest[at + 1 : at + 1 + rest[at]])
        middle = at + MOST + 2
        guesses.append(rest[middle + 1 : middle + 1 + rest[middle]])
    return bool(over), drawn, guesses
