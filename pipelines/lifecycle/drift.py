"""How the live version fares, from what the gateway counts: shares and percentiles of one stretch of time.

Knows the text of `/metrics` and arithmetic. Asks nobody.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

HISTOGRAMS = {
    "ttft": "vllm:time_to_first_token_seconds",
    "itl": "vllm:inter_token_latency_seconds",
    "latency": "vllm:e2e_request_latency_seconds",
    "queue": "vllm:request_queue_time_seconds",
    "tokens": "vllm:request_generation_tokens",
}
TIMES = ("ttft", "itl", "latency", "queue")  # of these; the others are counts
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
ENDED = "vllm:request_success_total"
STATISTICS = (
    "abort_rate", "cut_rate", *(f"{quantile}_{name}" for name in HISTOGRAMS for quantile in QUANTILES),
    *(f"mean_{name}" for name in HISTOGRAMS),
)  # fmt: skip
_LINE = re.compile(r"(?P<name>[a-zA-Z_:]+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Counts:
    """What has been counted since the gateway began: bounds of histograms with how many were below, sums, ends."""

    buckets: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    sums: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, float] = field(default_factory=dict)


def said(metric: str, value: float) -> str:
    """A statistic with its unit."""
    if metric.rpartition("_")[2] in TIMES:
        return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    return f"{value * 100:.3g} %" if metric.endswith("_rate") else f"{value:.4g}"


def read(text: str, model: str) -> Counts:
    """The counts of a model, all its versions together."""
    buckets: dict[str, dict[float, float]] = {name: defaultdict(float) for name in HISTOGRAMS}
    sums: dict[str, float] = defaultdict(float)
    ends: dict[str, float] = defaultdict(float)
    short = {full: name for name, full in HISTOGRAMS.items()}
    for found in _LINE.finditer(text):
        labels = dict(_LABEL.findall(found["labels"]))
        if labels.get("model_name") != model:
            continue
        stem, _, kind = found["name"].rpartition("_")
        if kind == "bucket" and stem in short:
            buckets[short[stem]][float(labels["le"].replace("+Inf", "inf"))] += float(found["value"])
        elif kind == "sum" and stem in short:
            sums[short[stem]] += float(found["value"])
        elif found["name"] == ENDED:
            ends[labels.get("finished_reason", "")] += float(found["value"])
    return Counts({name: dict(each) for name, each in buckets.items()}, dict(sums), dict(ends))


def between(before: Counts, after: Counts) -> tuple[dict[str, float], int]:
    """The statistics of what was counted from `before` to `after`, and of how many answers they are.

    Nothing where a gateway began anew in between: its counts are lower than they were.
    """
    ends = {why: count - before.ends.get(why, 0.0) for why, count in after.ends.items()}
    if any(count < 0 for count in ends.values()) or set(before.ends) - set(after.ends):
        return {}, 0
    answers = sum(ends.values())
    if not answers:
        return {}, 0
    found = {"abort_rate": ends.get("abort", 0.0) / answers, "cut_rate": ends.get("length", 0.0) / answers}
    for name, bounds in after.buckets.items():
        below = {bound: count - before.buckets.get(name, {}).get(bound, 0.0) for bound, count in bounds.items()}
        whole = below.get(float("inf"), 0.0)
        if whole <= 0:
            continue
        found[f"mean_{name}"] = (after.sums.get(name, 0.0) - before.sums.get(name, 0.0)) / whole
        for quantile, share in QUANTILES.items():
            found[f"{quantile}_{name}"] = _quantile(below, share * whole)
    return found, int(answers)


def _quantile(below: Mapping[float, float], wanted: float) -> float:
    """As Prometheus' histogram_quantile has it: evenly within a bucket, of the last one its lower bound."""
    low, count = 0.0, 0.0
    for bound in sorted(below):
        if below[bound] >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - count) / max(below[bound] - count, 1e-12)
        low, count = bound, below[bound]
    return low
