"""When a schedule is due, and what is none."""

from datetime import UTC, datetime

import pytest

from cluster.errors import InvalidRequest
from pipelines.lifecycle.cron import after, parse


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("schedule", "now", "then"), [
    ("30 3 * * *", "2026-03-01T03:29:59", "2026-03-01T03:30:00"),
    ("30 3 * * *", "2026-03-01T03:30:00", "2026-03-02T03:30:00"),
    ("*/20 9-10 * * *", "2026-03-01T09:41:00", "2026-03-01T10:00:00"),
    ("0 0 * * 1-5", "2026-02-27T12:00:00", "2026-03-02T00:00:00"),  # over a weekend
    ("0 0 * * mon,7", "2026-03-02T12:00:00", "2026-03-08T00:00:00"),  # 7 is Sunday, too
    ("0 0 31 * *", "2026-02-01T00:00:00", "2026-03-31T00:00:00"),
    ("0 0 29 feb *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
    ("0 0 13 * 5", "2026-03-01T00:00:00", "2026-03-06T00:00:00"),  # either of them, as cron(5) has it
    ("5/15 0 * * *", "2026-03-01T00:06:00", "2026-03-01T00:20:00"),
    ("@monthly", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
])  # fmt: skip
def test_the_first_time_after(schedule, now, then):
    assert after(parse(schedule, "on.schedule"), at(now)) == at(then)


@pytest.mark.parametrize(("schedule", "remedy"), [
    ("", "give minute, hour"),
    ("* * * *", "give minute, hour"),
    ("60 * * * *", "'60' is no minute: give numbers from 0 to 59"),
    ("* 24 * * *", "'24' is no hour"),
    ("* * 0 * *", "'0' is no day of month"),
    ("* * * 13 *", "'13' is no month"),
    ("* * * * 8", "'8' is no day of week"),
    ("5-1 * * * *", "'5-1' is no minute"),
    ("*/0 * * * *", "no minute"),
    ("*/x * * * *", "no minute"),
    ("1,,2 * * * *", "'' is no minute"),
    ("² * * * *", "no minute"),
    ("0 0 31 2 *", "that day is in no year"),
])  # fmt: skip
def test_what_is_no_schedule(schedule, remedy):
    with pytest.raises(InvalidRequest) as refused:
        parse(schedule, "on.schedule")
    assert remedy in str(refused.value)
    assert "on.schedule" in str(refused.value)
