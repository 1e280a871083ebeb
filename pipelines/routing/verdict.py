"""Whether a new version is worse than the one that answers beside it, by rules and by what both have answered so far.

A rule is broken when it is proven: when the whole interval of the new version lies beyond the whole interval of the old
one, or beyond the number that the rule names. All intervals of a rollout hold together, at all times, with a chance of
1 - `alpha`: so a version that breaks no rule is taken back with a chance of at most `alpha`, however often one looks.

Knows arms and conditions. Knows nothing of states, routes and clocks.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cluster.condition import Condition, Kind, parse, require
from cluster.errors import InvalidRequest
from pipelines.routing.evidence import SKETCHES, Arm, Interval, Score

ALPHA = 0.01
LEVELS = (50, 90, 95, 99)
RATES = {"error_rate": "errors", "refusal_rate": "refusals", "cut_rate": "cuts", "loss_rate": "losses"}
SCORES = re.compile(r"(eval|shadow)\.[a-z0-9_]+|feedback\.(thumbs|score|kept)")
KNOWN = (*RATES, *(f"p{level}_{name}" for name in SKETCHES for level in LEVELS))
_SLACK = 1e-9  # what sums such as 0.9 - 0.02 are off by
TOLD = "eval.NAME, feedback.thumbs, feedback.score, feedback.kept, shadow.agreement"


class State(StrEnum):
    """Of a rule: not enough answers to say anything; kept as it looks; broken as it looks; proven to be broken."""

    UNKNOWN = "unknown"
    KEPT = "kept"
    DOUBTFUL = "doubtful"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Rule:
    """What must not be. With a baseline, `factor` times its value and the condition's number is the limit."""

    condition: Condition
    factor: float = 1.0

    @property
    def beside(self) -> bool:
        """Whether only answers beside those of its users tell: a baseline's, or mirrored ones. Both are asked evals."""
        kind, _, _ = self.condition.metric.partition(".")
        return kind == "shadow" or (self.condition.baseline and kind != "eval")

    def __str__(self) -> str:
        if self.factor == 1.0:
            return str(self.condition)
        return str(self.condition).replace("baseline", f"{self.factor:g} baseline")


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule, of which metric, and what it comes to. `limit`: the interval that the new version's is compared with."""

    rule: str
    metric: str
    state: State
    value: Interval | None = None
    limit: Interval | None = None

    def __str__(self) -> str:
        if self.value is None or self.limit is None:
            return f"{self.rule}: no answers yet"
        return f"{self.rule}: {_told(self.value)} against the limit {_told(self.limit)}, {self.state}"


def rule(text: str, field: str) -> Rule:
    """What `--abort-if` says. Raises InvalidRequest for what is no condition, names no metric or lacks its unit."""
    condition = parse(text, field)
    if condition.metric not in KNOWN and not SCORES.fullmatch(condition.metric):
        known = ", ".join((*RATES, "p50_, p90_, p95_ and p99_ of " + ", ".join(SKETCHES)))
        raise InvalidRequest(field, text, f"there is no metric {condition.metric}; there is {known}, {TOLD}")
    require(text, field, _kind(condition.metric))
    return Rule(condition)


def kept(text: str) -> Rule:
    """A rule that was taken once, though it would be refused by now."""
    return Rule(parse(text, "abort_if"))


def _kind(metric: str) -> Kind:
    if metric in RATES or SCORES.fullmatch(metric):
        return Kind.SHARE
    return Kind.COUNT if metric.endswith("_tokens") else Kind.TIME


def guards(margin: float) -> tuple[Rule, ...]:
    """What a new version must not be, whatever else is asked: slower by `margin`, failing or refusing more."""

    def slower(metric: str, seconds: float) -> Rule:
        return Rule(Condition(metric, ">", seconds, baseline=True), 1.0 + margin)

    return (
        slower("p50_ttft", 0.005),
        slower("p90_ttft", 0.02),
        slower("p50_itl", 0.0005),
        slower("p90_itl", 0.002),
        slower("p50_latency", 0.01),
        Rule(Condition("error_rate", ">", 0.01, baseline=True)),
        Rule(Condition("refusal_rate", ">", 0.05, baseline=True)),
    )


def judge(rules: Sequence[Rule], new: Arm, old: Arm, alpha: float) -> list[Finding]:
    """Every rule's finding; together they are wrong with a chance of at most `alpha` over all times."""
    share = alpha / max(1, len(rules))
    return [_judge(each, new, old, share) for each in rules]


def _judge(rule: Rule, new: Arm, old: Arm, alpha: float) -> Finding:
    condition = rule.condition
    paired = condition.baseline
    value = interval(new, condition.metric, alpha / 2 if paired else alpha)
    limit = Interval(condition.number, condition.number, condition.number)
    if paired:
        there = interval(old, condition.metric, alpha / 2)
        if there is None:
            return Finding(str(rule), condition.metric, State.UNKNOWN)
        limit = Interval(*(rule.factor * at + condition.number for at in (there.looks, there.low, there.high)))
    if value is None:
        return Finding(str(rule), condition.metric, State.UNKNOWN)
    above = condition.compare in (">", ">=")
    beyond = (value.low - limit.high, value.looks - limit.looks)
    if not above:
        beyond = (limit.low - value.high, limit.looks - value.looks)
    proven, looks = (gap > _SLACK for gap in beyond)
    state = State.BROKEN if proven else State.DOUBTFUL if looks else State.KEPT
    return Finding(str(rule), condition.metric, state, value, limit)


def interval(arm: Arm, metric: str, alpha: float) -> Interval | None:
    """Where a metric of an arm lies; None before it has a value."""
    if metric in RATES:
        counted = arm.answers if metric == "error_rate" else arm.answers - arm.errors
        return Score(counted, getattr(arm, RATES[metric])).mean(alpha)
    if metric in KNOWN:
        level, _, name = metric[1:].partition("_")
        found: Interval | None = getattr(arm, name).quantile(int(level) / 100, alpha)
        return found
    return arm.scores.get(metric, Score()).mean(alpha)


def _told(found: Interval) -> str:
    high = "?" if math.isinf(found.high) else f"{found.high:.4g}"
    return f"{found.looks:.4g} ({found.low:.4g} to {high})"
