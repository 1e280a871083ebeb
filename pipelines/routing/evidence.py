"""What the answers of one version were like, as sums: small, added up in any order, plain to send and to keep.

Knows counts and sketches. Knows nothing of versions, of time or of what is good.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pipelines.routing import sequential

STEPS = 16  # of a sketch to twice the value: a bucket is 4.4 % wide
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Interval:
    """A value as it looks, and between what it lies."""

    looks: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sketch:
    """How many values lie in which bucket of a logarithmic scale."""

    buckets: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, *values: float) -> Self:
        """A sketch of these."""
        buckets: dict[int, int] = {}
        for value in values:
            place = math.floor(math.log2(max(value, _LEAST)) * STEPS)
            buckets[place] = buckets.get(place, 0) + 1
        return cls(buckets)

    def __add__(self, other: "Sketch") -> "Sketch":
        both = dict(self.buckets)
        for place, count in other.buckets.items():
            both[place] = both.get(place, 0) + count
        return Sketch(both)

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    def quantile(self, level: float, alpha: float) -> Interval | None:
        """Where the quantile lies, at all times at once with a chance of 1 - `alpha`; None before the first value."""
        count = self.count
        if not count:
            return None
        least, most = sequential.ranks(level, count, alpha)
        low = self._edge(least) if least else 0.0
        high = self._edge(most + 1, 1) if most < count else math.inf
        return Interval(self._edge(max(1, math.ceil(level * count)), 0.5), low, high)

    def _edge(self, rank: int, side: float = 0.0) -> float:
        """The lower edge of the bucket with the value of that rank, from 1; its upper one with `side` 1."""
        seen = 0
        for place in sorted(self.buckets):
            seen += self.buckets[place]
            if seen >= rank:
                return float(2.0 ** ((place + side) / STEPS))
        return math.inf


@dataclass(frozen=True, slots=True)
class Score:
    """Values from 0 to 1, summed up; with `of`, 0s and 1s drawn out of so many, each once."""

    count: int = 0
    total: float = 0.0
    of: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.count + other.count, self.total + other.total, self.of or other.of)

    def mean(self, alpha: float) -> Interval | None:
        """Where the mean lies: with `of` the one of all that are drawn from."""
        if not self.count:
            return None
        if self.of:
            return Interval(self.total / self.count, *sequential.share(int(self.total), self.count, self.of, alpha))
        return Interval(self.total / self.count, *sequential.mean(self.total, self.count, alpha))


@dataclass(frozen=True, slots=True)
class Arm:
    """The answers of one version: how many failed, were refusals or were cut at max_tokens, and how long they took.

    `losses`: of how many a replica died, whoever took them up.

    Seconds: `latency` of whole answers, `ttft` until the first token, `itl` between tokens, a mean for each answer.
    `scores`: by name, such as `eval.exact_match`.
    """

    answers: int = 0
    errors: int = 0
    refusals: int = 0
    cuts: int = 0
    latency: Sketch = field(default_factory=Sketch)
    ttft: Sketch = field(default_factory=Sketch)
    itl: Sketch = field(default_factory=Sketch)
    tokens: Sketch = field(default_factory=Sketch)
    scores: Mapping[str, Score] = field(default_factory=dict)
    losses: int = 0

    def __add__(self, other: "Arm") -> "Arm":
        scores = dict(self.scores)
        for name, score in other.scores.items():
            scores[name] = scores.get(name, Score()) + score
        return Arm(
            self.answers + other.answers,
            self.errors + other.errors,
            self.refusals + other.refusals,
            self.cuts + other.cuts,
            self.latency + other.latency,
            self.ttft + other.ttft,
            self.itl + other.itl,
            self.tokens + other.tokens,
            scores,
            self.losses + other.losses,
        )

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            **{name: getattr(self, name) for name in COUNTS},
            **{name: [[place, count] for place, count in getattr(self, name).buckets.items()] for name in SKETCHES},
            "scores": {
                name: [score.count, score.total, *([score.of] if score.of else [])]
                for name, score in self.scores.items()
            },
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain` gave."""
        answers, errors, refusals, cuts, losses = (int(plain.get(name, 0)) for name in COUNTS)
        latency, ttft, itl, tokens = (
            Sketch({int(at): int(count) for at, count in plain[name]}) for name in SKETCHES
        )  # fmt: skip
        scores = {
            name: Score(int(count), float(total), *map(int, of))
            for name, (count, total, *of) in plain["scores"].items()
        }
        return cls(answers, errors, refusals, cuts, latency, ttft, itl, tokens, scores, losses)


COUNTS = ("answers", "errors", "refusals", "cuts", "losses")
SKETCHES = ("latency", "ttft", "itl", "tokens")
