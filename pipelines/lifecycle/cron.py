"""Schedules as cron writes them: `30 3 * * 1-5`, five fields of numbers, ranges, lists and steps.

Knows text and times; when it is now is an argument. Times are UTC, so that a night with two half past twos has one.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cluster.errors import InvalidRequest

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
WORDS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
YEARS = 8  # two leap days are at most so far apart (1896 and 1904)


@dataclass(frozen=True, slots=True)
class Cron:
    """Which values each field takes. As cron(5) has it: with both days restricted, either of them suffices."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool

    def on(self, day: datetime) -> bool:
        """Whether it comes at all on this day."""
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (in_month or in_week if self.either else in_month and in_week)


def parse(text: str, field: str) -> Cron:
    """The schedule that `text` says. Raises InvalidRequest, also for a date that never comes."""
    parts = WORDS.get(text.strip().lower(), text).split()
    if len(parts) != len(FIELDS):
        remedy = "give minute, hour, day of month, month and day of week, such as '30 3 * * 1-5', or every: 6h"
        raise InvalidRequest(field, text, remedy)
    values = [_values(part, *known, field, text) for part, known in zip(parts, FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = values
    either = not parts[2].startswith("*") and not parts[4].startswith("*")
    made = Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)
    if after(made, 0.0) is None:
        raise InvalidRequest(field, text, "that day is in no year; look at day of month and month")
    return made


def after(cron: Cron, at: float) -> float | None:
    """The first time after `at`, in seconds since 1970; None where there is none."""
    start = (datetime.fromtimestamp(at, UTC) + timedelta(minutes=1)).replace(second=0, microsecond=0)
    day = start.replace(hour=0, minute=0)
    for _ in range(366 * YEARS):
        if cron.on(day):
            for hour in sorted(cron.hours):
                for minute in sorted(cron.minutes):
                    found = day.replace(hour=hour, minute=minute)
                    if found >= start:
                        return found.timestamp()
        day += timedelta(days=1)
    return None


def _values(part: str, name: str, least: int, most: int, field: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for piece in part.lower().split(","):
        span, slash, step = piece.partition("/")
        first, dash, last = (str(least), "-", str(most)) if span == "*" else span.partition("-")
        low = _number(first, name)
        high = _number(last, name) if dash else (most if slash and low is not None else low)
        stride = int(step) if step.isdecimal() else None
        if low is None or high is None or not least <= low <= high <= most or (slash and not stride):
            remedy = f"{piece!r} is no {name}: give numbers from {least} to {most}, such as 1, 1-5, 1,3 or */2"
            raise InvalidRequest(field, text, remedy)
        found.update(range(low, high + 1, stride or 1))
    return frozenset(found)


def _number(text: str, name: str) -> int | None:
    names = NAMES.get(name, ())
    if text in names:
        return names.index(text) + (1 if name == "month" else 0)
    return int(text) if text.isdecimal() and len(text) < 4 else None
