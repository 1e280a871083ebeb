"""How many prompt tokens may join a step, so that answers under way keep flowing.

A step's seconds are thought linear in what it computes; what each step took corrects that, by a Kalman filter (1960),
whose doubt decides how much it moves and how far it is trusted. Knows shapes of steps and seconds. Knows nothing of
sequences, blocks or clocks.
"""

from dataclasses import dataclass

import numpy as np

# Until a thing was measured, what it costs beside reading the weights once: a decode, a token in a decode's context, a
# prompt token, a key that one looks at. Of a processor with 40 GB/s and 1 TFLOP/s in bfloat16, to a factor of three.
_PRIOR = np.array([1.0, 1 / 16, 1 / 64_000, 1 / 24, 1 / 100_000])
_NOISE = 0.1  # of a step's seconds: what two equal ones differ by
_DRIFT = 0.02  # by which what a thing costs may change from one step to the next: contexts grow, the machine gets busy
_MOST_DOUBT = 0.5  # to which that adds up, of what it costs
_OUTLIER = 3.0  # standard deviations beyond which a step tells no more
_AIM = 0.88  # of the longest gap: a step that takes longer than foreseen is within it, too
_TILE = 16  # tokens of one prompt that attention computes at a time: a part of them costs as much as all
_GRAIN = 8  # tokens: chunks are multiples, where they are not smaller
_FLOOR = 4  # tokens of prompts in a step, whatever they cost: nobody starves. Below it, a whole tile joins
_LOOK = 64  # after so many steps with prompts one goes without: what the others cost alone must not be guessed for ever


@dataclass(frozen=True, slots=True)
class Shape:
    """What a step computes, as far as its time depends on that."""

    decodes: int = 0  # sequences that get one more token
    read: int = 0  # tokens in their contexts
    tokens: int = 0  # of prompts
    visits: float = 0.0  # keys that those look at, in whole tiles: a late chunk's are more than an early one's

    def chunk(self, start: int, count: int) -> "Shape":
        """With `count` more tokens of a prompt, the first at position `start`."""
        seen = -(-count // _TILE) * _TILE * (start + (count + 1) / 2)
        return Shape(self.decodes, self.read, self.tokens + count, self.visits + seen)


class Costs:
    """What a step takes by its shape, as measured."""

    def __init__(self) -> None:
        self._seconds: np.ndarray | None = None  # [5]: a step, a decode, a token it reads, a prompt token, a visit
        self._doubt = np.zeros((5, 5))  # their covariance
        self._mixed = False

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return self._seconds is not None

    def of(self, shape: Shape) -> float:
        """Seconds of such a step, give or take `doubtful`; infinite while nothing was measured."""
        return np.inf if self._seconds is None else float(_features(shape) @ self._seconds)

    def doubtful(self, shape: Shape) -> float:
        """The standard deviation of `of`."""
        features = _features(shape)
        return float(np.sqrt(max(0.0, features @ self._doubt @ features)))

    def learn(self, shape: Shape, took: float) -> None:
        """Such a step took `took` seconds.

        Of prompts alone only as long as there is nothing better: large chunks among nothing else cost less a token.
        """
        features = _features(shape)
        if self._seconds is None:
            self._seconds = _PRIOR * (took / float(_PRIOR @ features))
            self._doubt = np.diag(self._seconds**2)
            return
        if self._mixed and not shape.decodes:
            return
        self._mixed = self._mixed or bool(shape.decodes and shape.tokens)
        self._drift(features)
        toward = self._doubt @ features
        foreseen = float(features @ self._seconds)
        variance = float(features @ toward) + (_NOISE * max(foreseen, _NOISE * took)) ** 2
        limit = _OUTLIER * variance**0.5
        surprise = min(limit, max(-limit, took - foreseen))
        self._seconds = np.maximum(self._seconds + toward * (surprise / variance), 0.0)
        self._doubt -= np.outer(toward, toward) / variance

    def _drift(self, features: np.ndarray) -> None:
        assert self._seconds is not None
        old = np.diagonal(self._doubt)
        moves = (features > 0) & (old < (_MOST_DOUBT * self._seconds) ** 2)
        self._doubt[np.diag_indices(5)] += np.where(moves, (_DRIFT * self._seconds) ** 2, 0.0)


class Allowance:
    """What may still join one step of `shape`, which may take `seconds`."""

    def __init__(self, costs: Costs, shape: Shape, seconds: float, floor: int) -> None:
        self._costs, self._shape, self._seconds, self._floor = costs, shape, seconds, floor
        self._full = False

    @property
    def nothing(self) -> bool:
        """Whether no prompt may join at all."""
        return self._seconds == 0.0 and not self._floor

    def chunk(self, start: int, most: int) -> int:
        """How many of a prompt's next `most` tokens, from position `start`, join. After a prompt cut short, none do."""
        if self._seconds == np.inf:
            return most
        if self._full:
            return 0
        self._full = not self._fits(start, most)
        count = self._largest(start, most) if self._full else most
        if count < min(most, self._floor):
            count = min(most, _TILE)
        self._shape = self._shape.chunk(start, count)
        self._floor = max(0, self._floor - count)
        return count

    def fetch(self, blocks: int, seconds: float | None) -> int:
        """How many of `blocks` that take `seconds` each to fetch are fetched. After fewer than all, nothing joins.

        At least one is, where anything may still join: nobody starves. None: it was never measured.
        """
        if self._seconds == np.inf:
            return blocks
        if self._full or self.nothing:
            return 0
        left = self._seconds - self._costs.of(self._shape) - self._costs.doubtful(self._shape)
        count = 1 if seconds is None else max(1, min(blocks, int(left / max(seconds, 1e-9))))
        self._full = count < blocks
        self._seconds = max(0.0, self._seconds - count * (seconds or 0.0))
        return count

    def _largest(self, start: int, most: int) -> int:
        """Of 1, 2, 4 and whole grains up to `most` the most that fits."""
        if not self._fits(start, _GRAIN):
            return next((few for few in (4, 2, 1) if few <= most and self._fits(start, few)), 0)
        low, high = 1, max(1, most // _GRAIN)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._fits(start, middle * _GRAIN) else (low, middle - 1)
        return min(most, low * _GRAIN)

    def _fits(self, start: int, count: int) -> bool:
        wanted = self._shape.chunk(start, count)
        return self._costs.of(wanted) + self._costs.doubtful(wanted) <= self._seconds


class Pace:
    """Keeps the gap between a running answer's tokens to `stretch` of what it is without prompts; None: to none.

    A gap below `unseen` seconds is never too long.
    """

    def __init__(self, stretch: float | None, unseen: float = 0.0) -> None:
        self._stretch, self._unseen = stretch, unseen
        self._costs = Costs()
        self._since = 0  # steps with prompts among answers, since one of answers alone

    def allow(self, decodes: int, read: int) -> Allowance:
        """What may join `decodes` sequences with `read` tokens in their contexts. Where there are none, anything."""
        alone = Shape(decodes, read)
        if not decodes or self._stretch is None:
            return Allowance(self._costs, alone, np.inf, 0)
        if self._since >= _LOOK:
            return Allowance(self._costs, alone, 0.0, 0)
        longest = max(self._stretch * self._costs.of(alone), self._unseen) if self._costs.known else 0.0
        return Allowance(self._costs, alone, _AIM * longest, _FLOOR)

    def learn(self, shape: Shape, took: float) -> None:
        """Such a step took `took` seconds."""
        if self._stretch is None:
            return
        if shape.decodes:
            self._since = self._since + 1 if shape.tokens else 0
        self._costs.learn(shape, took)


def _features(shape: Shape) -> np.ndarray:
    return np.array([1.0, shape.decodes, shape.read, shape.tokens, shape.visits])
