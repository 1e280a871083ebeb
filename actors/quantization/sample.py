"""Sample text as equal rows of tokens, to calibrate with and to measure on.

Knows tokens, and which of them a model was taught to say. Where the text comes from is its caller's choice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from cluster.errors import InvalidRequest

ROW_TOKENS = 256
LEAST_ROWS = 2
Piece = tuple[str, bool]  # text, and whether what a model says there counts


@dataclass(frozen=True, slots=True)
class Sample:
    """`tokens` int64 [B, T]; `counted` bool [B, T] where a token is one that the model should have foretold."""

    tokens: torch.Tensor
    counted: torch.Tensor

    def first(self, rows: int) -> "Sample":
        """No more than `rows` of it."""
        return Sample(self.tokens[:rows], self.counted[:rows])


def sample(texts: Iterable[Sequence[Piece]], encode: Callable[[str], Sequence[int]], rows: int, longest: int) -> Sample:
    """The texts one after the other, cut into at most `rows` rows. Raises InvalidRequest for too few tokens."""
    width = min(ROW_TOKENS, longest)
    tokens: list[int] = []
    counted: list[bool] = []
    for pieces in texts:
        for text, counts in pieces:
            found = encode(text)
            tokens += found
            counted += [counts] * len(found)
        if len(tokens) >= rows * width:
            break
    whole = min(len(tokens) // width, rows)
    if whole < LEAST_ROWS:
        raise InvalidRequest("calibrate", f"a sample of {len(tokens)} tokens", f"{LEAST_ROWS * width} at least")
    size = whole * width
    return Sample(torch.tensor(tokens[:size]).view(whole, width), torch.tensor(counted[:size]).view(whole, width))
