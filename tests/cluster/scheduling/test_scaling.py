"""How many gangs: up at once, down slowly, never by old news, and to none only when nobody asks."""

from dataclasses import replace

import pytest

from cluster.scheduling.scaling import Decision, Report, Rules, Seen, decide, remembered

RULES = Rules(least=1, most=10, wait_seconds=1.0, kv_used=0.8, running=0.8, down_seconds=300.0)


def seen(ready: int, report: Report | None = None, **more: float) -> Seen:
    reports = () if report is None else (report,) * ready
    return replace(Seen(1000.0, reports, ready), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("report", "ready", "wanted", "names"),
    [
        (Report(1.0, waiting=1.5), 4, 6, "queues at 150%"),
        (Report(1.0, waiting=30.0), 4, 8, "queues at 3000%"),  # at most twice as many at once
        (Report(1.0, kv_used=0.8 * 1.5), 2, 3, "KV caches"),
        (Report(1.0, running=1.0), 4, 5, "running sequences at 125%"),
        (Report(1.0, waiting=1.05), 4, 4, "as it should be"),
        (Report(1.0, waiting=0.95), 4, 4, "as it should be"),
        (Report(1.0, kv_used=0.4), 4, 2, "KV caches at 50%"),
        (Report(1.0), 4, 1, "0%"),
        (Report(1.0, waiting=9.0), 9, 10, "queues"),  # no more than the most
    ],
)
def test_the_fullest_of_all_signals_decides(report: Report, ready: int, wanted: int, names: str) -> None:
    made = decide(seen(ready, report), RULES)
    assert made.replicas == wanted
    assert names in made.reason


def test_gangs_that_are_starting_count() -> None:
    """Or each look at the same queue would ask for more."""
    crowded = Report(1.0, waiting=2.0)
    assert decide(seen(4, crowded), RULES).replicas == 8
    assert decide(seen(4, crowded, starting=4), RULES).replicas == 8


def test_down_comes_to_the_most_that_was_asked_for_of_late() -> None:
    calm = seen(8, Report(1.0, running=0.2))
    assert decide(calm, RULES, [(900.0, 6), (690.0, 8)]).replicas == 6
    assert decide(calm, RULES, [(900.0, 6), (690.0, 8)]).asked == 2
    assert decide(calm, RULES, [(1.0, 6)]).replicas == 2
    assert decide(calm, RULES, [(900.0, 20)]).replicas == 8  # down never means up


def test_old_news_changes_nothing() -> None:
    crowded = Report(16.0, waiting=9.0)
    assert decide(seen(3, crowded), RULES) == Decision(3, "nobody has reported of late: all stays", 3)
    assert decide(seen(3), RULES).replicas == 3
    mixed = replace(seen(2), reports=(crowded, Report(1.0, waiting=0.5)))
    assert decide(mixed, replace(RULES, kv_used=None, running=None)).replicas == 1  # only the fresh one is heard


def test_to_none_when_idle_and_back_when_somebody_waits() -> None:
    rules = replace(RULES, least=0, idle_seconds=600.0)
    assert decide(seen(2, Report(1.0), idle=599.0), rules).replicas == 1
    assert decide(seen(2, Report(1.0), idle=601.0), rules).replicas == 0
    assert decide(seen(2, Report(1.0), idle=601.0, held=1), rules).replicas > 0
    assert decide(seen(0), rules).replicas == 0
    assert decide(seen(0, held=3), rules).replicas == 1
    assert decide(seen(0), RULES).replicas == 1


def test_requests_per_second_count_only_if_asked_for() -> None:
    report = Report(1.0, requests_per_second=30.0, running=0.8)
    assert decide(seen(2, report), RULES).replicas == 2
    assert decide(seen(2, report), replace(RULES, requests_per_second=20.0)).replicas == 3


def test_of_the_past_is_kept_what_may_count_later() -> None:
    before: list[tuple[float, int]] = []
    for now, asked in ((0.0, 5), (10.0, 2), (20.0, 4), (30.0, 4), (40.0, 1)):
        before = remembered(before, now, asked, 100.0)
    assert before == [(0.0, 5), (30.0, 4), (40.0, 1)]
    assert remembered(before, 101.0, 1, 100.0) == [(30.0, 4), (101.0, 1)]


def test_a_first_gang_that_starts_is_not_ended_for_idleness() -> None:
    rules = replace(RULES, least=0, idle_seconds=60.0)
    assert decide(Seen(0.0, (), 0, starting=1, idle=600.0), rules).replicas == 1
    assert decide(seen(1, Report(1.0), idle=600.0), rules).replicas == 0
