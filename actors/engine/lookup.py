"""Guess the next tokens of a sequence from its own past.

Prompt lookup (Saxena 2023; "n-gram" in vLLM): where the last few tokens stood before, what followed them then is the
guess. Knows token arrays. Knows nothing of models, or of whether a guess pays.
"""

from dataclasses import dataclass, field

import numpy as np

LONGEST_MATCH, SHORTEST_MATCH = 4, 2
_FEW = 16  # tokens below which a loop is faster than an array

NOTHING = np.zeros(0, np.int64)


def lookup(tokens: np.ndarray, most: int) -> np.ndarray:
    """At most `most` tokens that followed the latest earlier place where `tokens` [n] ended as it ends now."""
    size = len(tokens)
    if size <= SHORTEST_MATCH or most < 1:
        return NOTHING
    ends = np.flatnonzero(tokens[: size - 1] == tokens[size - 1])  # where the last token stood before
    for back in range(1, LONGEST_MATCH):
        if not len(ends):
            break
        held = ends[ends >= back]
        longer = held[tokens[held - back] == tokens[size - 1 - back]]
        if not len(longer):
            if back < SHORTEST_MATCH:
                return NOTHING
            break
        ends = longer
    if not len(ends):
        return NOTHING
    # the latest place often has too little after it: of equal matches, one that fills the guess
    full = ends[ends + most < size]
    at = int(full[-1] if len(full) else ends[-1]) + 1
    return tokens[at : at + most]


@dataclass(slots=True)
class Pairs:
    """Which pairs of tokens one text has had."""

    seen: set[int] = field(default_factory=set)
    done: int = 1  # leading tokens whose pairs are in `seen`

    def repeats(self, text: np.ndarray) -> bool:
        """Whether the last two tokens of `text`, which only grows, stood together before: else a search is in vain."""
        size = len(text)
        if size <= SHORTEST_MATCH:
            return False
        if size - self.done > _FEW:
            part = text[self.done - 1 : size - 1].tolist()
            self.seen.update(map(_pair, part, part[1:]))
        else:
            for at in range(self.done, size - 1):
                self.seen.add(_pair(int(text[at - 1]), int(text[at])))
        self.done = size - 1
        return _pair(int(text[-2]), int(text[-1])) in self.seen


def _pair(before: int, token: int) -> int:
    return before << 32 | token
