"""What is asked under load, what came back, and the rows that sum it up.

Knows numbers. Knows nothing of who answered.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: for each number of streams, `requests` requests."""

    streams: tuple[int, ...]
    requests: int
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: seconds to the first token and to the end, tokens that came, why it failed if it did."""

    first: float
    total: float
    tokens: int
    failed: str = ""


Row = dict[str, float]


def summarize(streams: int, samples: Sequence[Sample], seconds: float) -> Row:
    """One row: times in milliseconds, tokens a second over all streams."""
    good = [sample for sample in samples if not sample.failed]
    first = [1000 * sample.first for sample in good]
    between = [1000 * (s.total - s.first) / (s.tokens - 1) for s in good if s.tokens > 1]
    return {
        "streams": streams,
        "requests": len(samples),
        "failed": len(samples) - len(good),
        "first token p50 ms": percentile(first, 50),
        "first token p99 ms": percentile(first, 99),
        "between tokens p50 ms": percentile(between, 50),
        "answer p50 ms": percentile([1000 * sample.total for sample in good], 50),
        "tokens/s": sum(sample.tokens for sample in good) / seconds,
        "seconds": seconds,
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` % of the values do not exceed; 0 for none."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
