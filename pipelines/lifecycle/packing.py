"""Rows of tokens for one training step.

Owns how conversations are put into rows of equal length: short ones side by side, each its own segment, and now and
then several questions joined to one long conversation, so that the model stays itself late in a chat. A step's rows
are a function of seed, step and rank alone: that is what makes a run resumable without saving a data position.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from pipelines.lifecycle.conversation import spans
from pipelines.lifecycle.data.dice import Dice, digest
from pipelines.lifecycle.data.example import Turn
from pipelines.lifecycle.data.mixture import stream, system

MISSES = 6  # examples in a row that fit nowhere before a batch counts as full
JOINED_PERCENT = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """What `Decoder.forward` takes; the number of places is fixed, surplus ones weigh nothing."""

    tokens: torch.Tensor
    segments: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """The five tensors, on `device`."""
        parts = (self.tokens, self.segments, self.places, self.targets, self.weights)
        return tuple(part.to(device) for part in parts)


@dataclass(frozen=True, slots=True)
class Piece:
    """One encoded conversation: its tokens and how much each counts when it is to be predicted."""

    tokens: list[int]
    weights: list[float]


def conversations(tokenizer: Tokenizer, dice: Dice, joined_tokens: int) -> Iterator[Piece]:
    """Encoded conversations without end; joined ones have up to `joined_tokens`."""
    source = stream(dice.bits())
    while True:
        example = next(source)
        if example.tools or not dice.chance(JOINED_PERCENT if joined_tokens <= 256 else 90):
            yield encode(tokenizer, spans(example.turns, system(dice), example.tools))
            continue
        limit, turns = dice.whole(joined_tokens // 4, joined_tokens - 128), list[Turn]()
        said, size = system(dice), 0
        while size < limit:
            example = next(source)
            if not example.tools:
                turns += example.turns
                size += sum(len(tokenizer.encode(text).ids) + 5 for _, text in example.turns)
        yield encode(tokenizer, spans(turns, said, ()))


def encode(tokenizer: Tokenizer, pieces: list[tuple[str, bool]]) -> Piece:
    """Tokens and weights. Only what the assistant writes counts; long answers less per token than short ones."""
    tokens, weights = list[int](), list[float]()
    for (_, mine), encoding in zip(pieces, tokenizer.encode_batch([text for text, _ in pieces]), strict=True):
        tokens += encoding.ids
        weights += [len(encoding.ids) ** -0.5 if mine else 0.0] * len(encoding.ids)
    return Piece(tokens, weights)


def pack(tokenizer: Tokenizer, seed: int, rows: int, width: int) -> Batch:
    """`rows` rows of `width` tokens, as full as conversations make them."""
    tokens = np.zeros((rows, width), np.int64)
    segments = np.full((rows, width), -1, np.int64)
    weights = np.zeros((rows, width), np.float32)
    filled, misses, number = [0] * rows, 0, 0
    for piece in conversations(tokenizer, Dice(seed), width):
        size = len(piece.tokens)
        row = max((r for r in range(rows) if filled[r] + size <= width), key=lambda r: filled[r], default=None)
        if row is None:
            misses += 1
            if misses >= MISSES:
                break
            continue
        start = filled[row]
        tokens[row, start : start + size] = piece.tokens
        weights[row, start : start + size] = piece.weights
        segments[row, start : start + size] = number
        filled[row], number = start + size, number + 1
    return predict(tokens, segments, weights)


def predict(tokens: np.ndarray, segments: np.ndarray, weights: np.ndarray) -> Batch:
    """The places whose next token is to be predicted: a fixed number, the rest filled up with weight 0."""
    room = tokens.size * 7 // 16  # about a third of all tokens are answers
    rows, columns = np.nonzero(weights[:, 1:])
    rows, columns = rows[:room], columns[:room]
    places, targets = np.zeros(room, np.int64), np.zeros(room, np.int64)
    counts = np.zeros(room, np.float32)
    places[: len(rows)] = rows * tokens.shape[1] + columns
    targets[: len(rows)] = tokens[rows, columns + 1]
    counts[: len(rows)] = weights[rows, columns + 1]
    return Batch(*(torch.from_numpy(array) for array in (tokens, segments, places, targets, counts)))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of one step of one rank."""
    return digest(f"{seed}/{step}/{rank}") | (seed << 32)
