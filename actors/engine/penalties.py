"""What a sequence has seen, and what that costs a token.

The definitions are vLLM's and Hugging Face's: repetition (Keskar et al. 2019, CTRL, section 4.1) divides
the positive and multiplies the negative logits of every token of prompt or output; frequency takes its
penalty once per occurrence in the output, presence once if there is any. Kept by token seen, not by
vocabulary: the cost goes with the length of a text, and a slot that asks for none costs nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from actors.messages import SamplingParams


class Seen:
    """The tokens of one sequence and how often its output holds each."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], emitted: Sequence[int]) -> None:
        self.repetition = params.repetition_penalty
        self.frequency, self.presence = params.frequency_penalty, params.presence_penalty
        counted = Counter(emitted)
        known = counted.keys() | (set(prompt) if self.repetition != 1.0 else set())
        self._place = {token: place for place, token in enumerate(sorted(known))}
        self._ids = np.fromiter(self._place, dtype=np.int64, count=len(self._place))
        self._counts = np.fromiter((counted[token] for token in self._place), np.float32, len(self._place))

    def add(self, token: int) -> None:
        """`token` was emitted."""
        place = self._place.setdefault(token, len(self._place))
        if place >= len(self._ids):
            self._grow()
        self._ids[place] = token
        self._counts[place] += 1

    def _grow(self) -> None:
        room = max(64, len(self._ids))
        self._ids = np.concatenate([self._ids, np.zeros(room, np.int64)])
        self._counts = np.concatenate([self._counts, np.zeros(room, np.float32)])

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Every token seen, once."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> npt.NDArray[np.float32]:
        """How often the output holds each of `ids`."""
        return self._counts[: len(self._place)]


def wanted(params: SamplingParams) -> bool:
    """Whether any of the three is on."""
    return bool(params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty)


def penalise(logits: npt.NDArray[np.float32], rows: Iterable[tuple[int, Seen]]) -> None:
    """Change the given rows of `logits` [rows, vocab] in place."""
    for row, seen in rows:
        ids, counts = seen.ids, seen.counts
        values = logits[row, ids]
        if seen.repetition != 1.0:
            values = np.where(values > 0, values / seen.repetition, values * seen.repetition)
        values -= seen.frequency * counts
        values -= seen.presence * (counts > 0)
        logits[row, ids] = values
