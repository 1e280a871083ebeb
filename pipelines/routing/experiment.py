"""An A/B experiment: versions side by side, each for its share of the users, and what users made of the answers.

A user counts once, by the first outcome of the kind that is looked at, from 0 to 1. Intervals hold at all times at
once, so that one may look whenever one likes and stop when it is settled. How many users that takes is calculated
before.
Knows no gateway and no file.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import NormalDist
from typing import Any, Self

from cluster import svg
from cluster.errors import InvalidRequest
from pipelines.routing import sequential
from pipelines.routing.evidence import Interval, Score

METRICS = ("thumbs", "score", "kept")
ALPHA, POWER = 0.05, 0.8
MOST = 10_000_000  # users of an arm beyond which nobody waits


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment. `arms`: percent of the users by version, the first of which the others are compared with."""

    name: str
    model: str
    arms: Mapping[str, float]
    metric: str
    effect: float  # the least difference that matters
    rate: float  # the outcome's mean that is expected of the first arm
    users: int  # that are expected to have an outcome, all arms together
    began: float = 0.0
    ended: float | None = None
    by: str = ""
    before: Mapping[str, float] = field(default_factory=dict)  # the weights when it began
    scores: Mapping[str, Score] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.ended is not None

    def heard(self, version: str, score: Score) -> "Experiment":
        """With more outcomes of a version; those of no arm are left out."""
        if version not in self.arms or self.over:
            return self
        return replace(self, scores={**self.scores, version: self.scores.get(version, Score()) + score})

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain` gave."""
        scores = {version: Score(**score) for version, score in plain["scores"].items()}
        known = {one.name: plain[one.name] for one in fields(cls) if one.name in plain}
        return cls(**{**known, "scores": scores})


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one arm: how many users, their mean, and by how much it differs from the first arm's."""

    version: str
    users: int
    mean: Interval | None
    differs: Interval | None
    said: str


def findings(experiment: Experiment) -> list[Finding]:
    """What is known of every arm; all of it is right at all times with a chance of 1 - ALPHA."""
    first, *others = experiment.arms
    share = ALPHA / len(experiment.arms)
    base = experiment.scores.get(first, Score()).mean(share)
    found = [
        Finding(first, experiment.scores.get(first, Score()).count, base, None, "what the others are compared with")
    ]
    for version in others:
        score = experiment.scores.get(version, Score())
        mean = score.mean(share)
        if mean is None or base is None:
            found.append(Finding(version, score.count, mean, None, "no outcomes yet"))
            continue
        differs = Interval(mean.looks - base.looks, mean.low - base.high, mean.high - base.low)
        found.append(Finding(version, score.count, mean, differs, _said(differs, experiment.effect)))
    return found


def needed(rate: float, effect: float, arms: int = 2) -> int:
    """How many users of each arm it takes to tell `rate` from `rate + effect` with a chance of POWER.

    By the very intervals that decide, at outcomes that are unlucky as far as that chance says.
    """
    share, luck = ALPHA / arms, NormalDist().inv_cdf(POWER) / math.sqrt(2)

    def told(count: int) -> bool:
        low, high = (
            count * mean + side * luck * math.sqrt(count * mean * (1 - mean))
            for mean, side in ((rate, 1), (rate + effect, -1))
        )
        below, above = (min(max(total, 0.0), float(count)) for total in (low, high))
        return sequential.mean(above, count, share)[0] > sequential.mean(below, count, share)[1]

    most = 16
    while not told(most):
        most *= 2
        if most > MOST:
            return MOST
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if told(middle) else (middle, most)
    return most


def check(experiment: Experiment) -> int:
    """The users that each arm needs. Raises InvalidRequest where its share of those expected is fewer."""
    each = needed(experiment.rate, experiment.effect, len(experiment.arms))
    version, least = min(experiment.arms.items(), key=lambda arm: arm[1])
    there = int(experiment.users * least / 100)
    if there < each:
        wanted, rates = math.ceil(each * 100 / least), (experiment.rate, experiment.rate + experiment.effect)
        raise InvalidRequest(
            "users",
            f"{experiment.users}, of whom {version} has {there},",
            f"to tell {rates[0]:g} from {rates[1]:g} each arm needs {each}, so {wanted} in all: run it for longer, "
            "give equal shares, ask for a larger effect, or begin it all the same, by force: true (--force)",
        )
    return each


def picture(told: Mapping[str, Any]) -> str:
    """An experiment as a gateway tells it: a line for each arm's mean, between what it lies."""
    rows = told["findings"]
    left, top, width = 150.0, 60.0, 460.0
    drawn = []
    for tenth in range(0, 11, 2):
        x = left + width * tenth / 10
        drawn.append(f'<line x1="{x}" y1="{top - 10}" x2="{x}" y2="{top + 40 * len(rows)}" stroke="#eee"/>')
        drawn.append(svg.text(x, top - 16, f"{tenth / 10:g}", "middle", 11))
    for place, row in enumerate(rows):
        y = top + 16 + 40 * place
        drawn.append(svg.text(left - 12, y + 4, f"{row['version']}, {row['users']} users", "end"))
        mean = row["mean"]
        if mean is not None:
            ends = [left + width * mean[side] for side in ("low", "high")]
            colour = "#999" if place == 0 else "#1668c1"
            drawn.append(
                f'<line x1="{ends[0]:.1f}" y1="{y}" x2="{ends[1]:.1f}" y2="{y}" stroke="{colour}" stroke-width="6"/>'
            )
            drawn.append(f'<circle cx="{left + width * mean["looks"]:.1f}" cy="{y}" r="5" fill="{colour}"/>')
        drawn.append(svg.text(left + width + 16, y + 4, row["said"], size=11))
    return svg.page(left + width + 330, top + 40 * len(rows) + 20, f"{told['name']}: {told['metric']}", "".join(drawn))


def _said(differs: Interval, effect: float) -> str:
    between = f"by {abs(differs.low):.3f} to {abs(differs.high):.3f}"
    if differs.low > 0:
        return f"better {between}"
    if differs.high < 0:
        return f"worse by {abs(differs.high):.3f} to {abs(differs.low):.3f}"
    if -effect < differs.low and differs.high < effect:
        return f"no different: less than {effect:g} either way"
    return f"not settled: {differs.low:+.3f} to {differs.high:+.3f}"
