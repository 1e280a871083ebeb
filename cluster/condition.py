"""Conditions that people write: `p99_latency > 500ms`, `error_rate > 1%`, `eval.exact_match < baseline - 0.02`.

Knows words, numbers and units. Knows no metric: whoever asks says which there are, and of what kind.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

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


class Kind(StrEnum):
    """What the numbers of a metric are, where that says which units they have."""

    TIME = "time"
    SHARE = "share"  # from 0 to 1
    COUNT = "count"


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


def require(text: str, field: str, kind: Kind) -> None:
    """Refuse what `parse` takes and nobody means: `p99_latency > 500` is 500 seconds, and `error_rate > 1` never true.

    Raises InvalidRequest with what was meant, perhaps.
    """
    condition, found = parse(text, field), _FORM.fullmatch(text)
    assert found is not None
    part = "shift" if condition.baseline else "number"
    size, unit = found[part], found[f"{part}_unit"]
    if size is not None and (remedy := _REFUSALS[kind](condition, size, unit)):
        raise InvalidRequest(field, text, f"{condition.metric} is a {kind}: {remedy}")


def _no_time(_: Condition, size: str, unit: str) -> str | None:
    return f"give its unit, say {size}ms or {size}s" if unit in ("", "%") else None


def _no_share(condition: Condition, size: str, unit: str) -> str | None:
    if unit not in ("", "%"):
        return "say 1% or 0.01"
    if not _never(condition):
        return None
    if unit == "" and 1 <= float(size) <= 100:
        return f"say {size}% or {float(size) / 100:g}"
    return "it lies within 0 and 1, which is 100%; give a limit that it can be beyond"


def _never(condition: Condition) -> bool:
    """Whether no two shares, or no share, can be told apart by it; at 100 % `>=` can be, and `>` cannot."""
    if condition.baseline:
        return abs(condition.number) >= 1
    return not 0 <= condition.number <= 1 or (condition.compare, condition.number) in ((">", 1.0), ("<", 0.0))


def _no_count(_: Condition, size: str, unit: str) -> str | None:
    return f"leave the unit out, say {size}" if unit else None


_REFUSALS: dict[Kind, Callable[[Condition, str, str], str | None]] = {
    Kind.TIME: _no_time, Kind.SHARE: _no_share, Kind.COUNT: _no_count,
}  # fmt: skip
