"""Conditions that people write: `p99_latency > 500ms`, `error_rate > 1%`, `eval.exact_match < baseline - 0.02`.

Knows words, numbers and units. Knows no metric: whoever asks says which there are.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from cluster.errors import InvalidRequest

_UNITS = {"": 1.0, "%": 0.01, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_COMPARES: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_NUMBER = r"(?P<{0}>[0-9]+(?:\.[0-9]+)?)\s*(?P<{0}_unit>%|us|ms|s|m|h|)"
METRIC = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*")
_FORM = re.compile(
    rf"\s*(?P<metric>{METRIC.pattern})\s*(?P<compare><=|>=|<|>)\s*(?:"
    + _NUMBER.format("number")
    + r"|(?P<baseline>baseline)(?:\s*(?P<sign>[-+])\s*"
    + _NUMBER.format("shift")
    + r")?)\s*"
)
_QUANTITY = re.compile(r"(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)(?P<unit>%|us|ms|s|m|h|)", re.IGNORECASE)
FORM = "METRIC, one of < <= > >=, and NUMBER[%|us|ms|s|m|h] or baseline [+|- NUMBER]"


@dataclass(frozen=True, slots=True)
class Condition:
    """`metric` compared with `number`, or with the baseline's own and `number` added. Seconds, and shares of 1."""

    metric: str
    compare: str
    number: float
    baseline: bool = False

    def holds(self, values: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> bool | None:
        """Whether it does; None where a value that it needs is not known."""
        mine = values.get(self.metric)
        there = (baseline or {}).get(self.metric) if self.baseline else 0.0
        if mine is None or there is None:
            return None
        return _COMPARES[self.compare](mine, there + self.number)

    def __str__(self) -> str:
        size = f"{abs(self.number):.9f}".rstrip("0").rstrip(".")
        if not self.baseline:
            return f"{self.metric} {self.compare} {size}"
        shift = f" {'-' if self.number < 0 else '+'} {size}" if self.number else ""
        return f"{self.metric} {self.compare} baseline{shift}"


def quantity(text: str) -> float | None:
    """`0.9`, `90%`, `500ms`, `1e-4` or `-2` as a number of seconds or shares; None for what is none."""
    found = _QUANTITY.fullmatch(text)
    return float(found["number"]) * _UNITS[found["unit"].lower()] if found else None


def parse(text: str, field: str, known: Collection[str] | None = None) -> Condition:
    """The condition that `text` says. `known`: the metrics there are, where that is settled. Raises InvalidRequest."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidRequest(field, text, f"write {FORM}, such as 'error_rate > 1%'")
    metric = found["metric"]
    if known is not None and metric not in known:
        raise InvalidRequest(field, text, f"there is no metric {metric}; there is {', '.join(sorted(known))}")
    if found["baseline"]:
        size = float(found["shift"]) * _UNITS[found["shift_unit"]] if found["shift"] else 0.0
        return Condition(metric, found["compare"], -size if found["sign"] == "-" else size, baseline=True)
    return Condition(metric, found["compare"], float(found["number"]) * _UNITS[found["number_unit"]])
