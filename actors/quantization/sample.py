"""Sample text as equal rows of tokens, to calibrate with and to measure on.

Knows tokens, and which of them a model was taught to say. Where the text comes from is its caller's choice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from cluster.errors import InvalidRequest

ROW_TOKENS = 256
LEAST_TOKENS = 128
OWN_TEXT = "our own sample text"
Piece = tuple[str, bool]  # text, and whether what a model says there counts
Marked = list[tuple[int, bool]]


@dataclass(frozen=True, slots=True)
class Sample:
    """`tokens` int64 [B, T], filled up behind where `real` is false.

    `counted` where a token is one that the model should have foretold.
    """

    tokens: torch.Tensor
    counted: torch.Tensor
    real: torch.Tensor

    def first(self, rows: int) -> "Sample":
        """No more than `rows` of it."""
        return Sample(self.tokens[:rows], self.counted[:rows], self.real[:rows])


def sample(
    texts: Iterable[Sequence[Piece]],
    encode: Callable[[str], Sequence[int]],
    rows: int,
    longest: int,
    *,
    apart: bool,
    begin: Sequence[int] = (),
    of: str = OWN_TEXT,
) -> Sample:
    """At most `rows` rows of `texts`: each on its own row if `apart`, else one after the other without a gap.

    `begin`: tokens that stand before every row, as a model of such a tokenizer knows no text without. `of`: what the
    texts are called. Raises InvalidRequest for too few tokens.
    """
    width = min(ROW_TOKENS, longest) - len(begin)
    encoded = ([(token, counts) for text, counts in pieces for token in encode(text)] for pieces in texts)
    found = _apart(encoded, rows, width) if apart else _packed(encoded, rows, width)
    lengths = [len(row) for row in found]
    if sum(lengths) < LEAST_TOKENS:
        remedy = f"give a text of {LEAST_TOKENS} tokens at least"
        raise InvalidRequest("--calibrate", f"{of}, of which {sum(lengths)} tokens are read,", remedy)
    found = [[*((token, False) for token in begin), *row] for row in found]
    lengths = [len(row) for row in found]
    size = max(lengths)
    full = [row + [(row[-1][0], False)] * (size - len(row)) for row in found]
    tokens = torch.tensor([[token for token, _ in row] for row in full])
    counted = torch.tensor([[counts for _, counts in row] for row in full])
    return Sample(tokens, counted, torch.arange(size) < torch.tensor(lengths)[:, None])


def _apart(texts: Iterable[Marked], rows: int, width: int) -> list[Marked]:
    found: list[Marked] = []
    for text in texts:
        if len(found) == rows:
            break
        if text:
            found.append(text[:width])
    return found


def _packed(texts: Iterable[Marked], rows: int, width: int) -> list[Marked]:
    joined: Marked = []
    for text in texts:
        if len(joined) >= rows * width:
            break
        joined += text
    pieces = [joined[at : at + width] for at in range(0, len(joined), width)]
    return pieces[:rows]
