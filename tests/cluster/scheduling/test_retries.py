"""However often things fail, at most a share of all work is work done again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduling.retries import Budget, Rules

RULES = Rules(share=0.2, free=1.0, seconds=10.0)


def taken(budget: Budget, now: float, running: int = 0) -> int:
    """How often something may be tried again now."""
    count = 0
    while budget.take(now, running):
        count += 1
    return count


def test_a_few_are_free_and_then_so_many_a_second() -> None:
    budget = Budget(RULES)
    assert taken(budget, 5.0) == 10
    assert taken(budget, 5.0) == 0
    assert taken(budget, 6.1) == 1
    assert taken(budget, 1000.0) == 10  # never more than at first


def test_five_requests_earn_one() -> None:
    budget = Budget(RULES)
    taken(budget, 0.0)
    for _ in range(50):
        budget.begun(0.0)
    assert taken(budget, 0.0) == pytest.approx(10, abs=1)


def test_streams_that_run_earn_as_time_goes_by() -> None:
    budget = Budget(RULES)
    budget.begun(0.0)
    assert taken(budget, 60.0, running=1_000) == pytest.approx(2_000, rel=0.02)  # of ten seconds


def test_what_was_earned_fades() -> None:
    budget = Budget(RULES)
    for _ in range(10_000):
        budget.begun(0.0)
    assert taken(budget, 100.0) <= 11


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    budget = Budget(RULES)
    taken(budget, 10.0)
    assert taken(budget, 10.0) == taken(budget, 3.0) == 0
    assert taken(budget, 10.5) == 0


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 40), st.integers(0, 40), st.integers(0, 30)), max_size=60))
def test_retries_stay_within_their_share_of_all_work(events: list[tuple[float, int, int, int]]) -> None:
    """Whoever tries again as often as it may: a fifth of what was asked and ran, and what is free."""
    budget, now, retries, asked, ran = Budget(RULES), 0.0, 0, 0, 0.0
    budget.begun(now)
    for pause, begun, running, tries in events:
        now += pause
        ran += running * pause
        for _ in range(begun):
            budget.begun(now, running)
        asked += begun
        retries += sum(budget.take(now, running) for _ in range(tries))
    assert retries <= RULES.share * (asked + 1 + ran) + RULES.free * (RULES.seconds + now) + 1e-6
