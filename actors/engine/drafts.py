"""Guess the next tokens of a sequence from its own past, and decide whether checking the guess pays.

Prompt lookup (Saxena 2023; "n-gram" in vLLM): where the last few tokens stood before, what followed them then is the
guess. One forward pass checks all of it, since rows of one sequence share the weights' way through memory. A guess is
kept as far as it equals what the sampler draws anyway, so that the answer is the very one without guessing.

Knows token arrays and times. Knows nothing of models, caches or ranks.
"""

from dataclasses import dataclass, field

import numpy as np

LONGEST_MATCH, SHORTEST_MATCH = 4, 2
MOST = 7  # tokens guessed at a time
_LENGTHS = (MOST, 4, 2, 1)
_FADE = 0.8  # of what is known of a slot, with every guess
_FORGET = 0.97  # with every step that guessed nothing: what failed once may pay later
_LEARN = 0.2
_SLOPE = 0.03  # what one more row is thought to cost until that was measured, as a share of one row

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
class Slot:
    """How often guesses of one sequence came true of late, and which pairs of tokens it has had."""

    hits: float = 0.0
    misses: float = 0.0
    pairs: set[int] = field(default_factory=set)
    paired: int = 1  # leading tokens whose pairs are in `pairs`

    def repeats(self, text: np.ndarray) -> bool:
        """Whether the last two tokens of `text`, which only grows, stood together before: else a search is in vain."""
        size = len(text)
        if size <= SHORTEST_MATCH:
            return False
        if size - self.paired > _FEW:
            part = text[self.paired - 1 : size - 1].tolist()
            self.pairs.update(map(_pair, part, part[1:]))
        else:
            for at in range(self.paired, size - 1):
                self.pairs.add(_pair(int(text[at - 1]), int(text[at])))
        self.paired = size - 1
        return _pair(int(text[-2]), int(text[-1])) in self.pairs

    @property
    def hope(self) -> float:
        """The chance that one more guessed token is right, before anything is known one half."""
        return (self.hits + 1.0) / (self.hits + self.misses + 2.0)

    def learn(self, guessed: int, right: int) -> None:
        """Of `guessed` tokens the first `right` were."""
        self.hits = _FADE * self.hits + right
        self.misses = _FADE * self.misses + (right < guessed)

    def rest(self) -> None:
        """Nothing was guessed in this step."""
        self.hits *= _FORGET
        self.misses *= _FORGET


@dataclass(slots=True)
class Costs:
    """What a step takes by the number of its rows, as measured."""

    seconds: dict[int, float] = field(default_factory=dict)

    def learn(self, rows: int, took: float) -> None:
        """A step of `rows` rows took `took` seconds."""
        known = self.seconds.get(rows)
        self.seconds[rows] = took if known is None else known + _LEARN * (took - known)

    def of(self, rows: int) -> float:
        """Seconds of such a step: measured, or a line through what was."""
        if rows in self.seconds:
            return self.seconds[rows]
        below = max((known for known in self.seconds if known < rows), default=None)
        above = min((known for known in self.seconds if known > rows), default=None)
        if below is None:
            return 1.0 if above is None else self.seconds[above]
        if above is None:
            return self.seconds[below] * (1.0 + _SLOPE * (rows - below))
        share = (rows - below) / (above - below)
        return self.seconds[below] + share * max(0.0, self.seconds[above] - self.seconds[below])


class Drafter:
    """Guesses for all slots of one rank."""

    def __init__(self, slots: int) -> None:
        self._slots = [Slot() for _ in range(slots)]
        self._costs = Costs()
        self.guessed = self.right = 0

    def join(self, slot: int) -> None:
        """Another sequence has the slot now."""
        self._slots[slot] = Slot()

    def worthy(self, slots: list[int]) -> list[int]:
        """Which of `slots` (by index) one guessed token could pay for at all, as the costs and their past stand."""
        rows = len(slots)
        bar = rows * (self._costs.of(rows + 1) / self._costs.of(rows) - 1.0)
        if bar >= 1.0:
            return []
        return [index for index, slot in enumerate(slots) if self._slots[slot].hope > bar]

    def propose(self, rows: int, asked: dict[int, np.ndarray], room: list[int]) -> dict[int, np.ndarray]:
        """Guesses by slot for those of a batch of `rows` that are `asked`, with their tokens so far; none is empty.

        `room`: for each asked, the most tokens that a guess may have.
        """
        found = {
            slot: guess
            for (slot, text), left in zip(asked.items(), room, strict=True)
            if left > 0 and self._slots[slot].repeats(text) and len(guess := lookup(text, min(MOST, left)))
        }
        longest = self._best(rows, found) if found else 0
        for slot in asked:
            if slot not in found or not longest:
                self._slots[slot].rest()
        return {slot: guess[:longest] for slot, guess in found.items()} if longest else {}

    def learn(self, slot: int, guessed: int, right: int) -> None:
        """How far a guess came true."""
        self._slots[slot].learn(guessed, right)
        self.guessed += guessed
        self.right += right

    def took(self, rows: int, seconds: float) -> None:
        """A step of decodes with `rows` rows in all."""
        self._costs.learn(rows, seconds)

    def _best(self, rows: int, found: dict[int, np.ndarray]) -> int:
        """The longest guess to allow, 0 for none: what makes the most tokens a second."""
        best, best_rate = 0, rows / self._costs.of(rows)
        for most in _LENGTHS:
            tokens, more = float(rows), 0
            for slot, guess in found.items():
                length = min(most, len(guess))
                tokens += expected(self._slots[slot].hope, length)
                more += length
            rate = tokens / self._costs.of(rows + more)
            if rate > best_rate:
                best, best_rate = most, rate
        return best


def _pair(before: int, token: int) -> int:
    return before << 32 | token


def expected(hope: float, length: int) -> float:
    """How many of `length` guessed tokens come true, where each does with chance `hope` if those before it did."""
    return length if hope >= 1.0 else hope * (1.0 - hope**length) / (1.0 - hope)
