"""A node that comes up late, at the second attempt or never; no cluster is needed for that."""

from types import SimpleNamespace

import pytest

from tests.system.machines import ATTEMPTS, HUNG_SECONDS, come_up


def ends(after: int | None) -> SimpleNamespace:
    """A process that has ended at its poll number `after`; None: never."""
    polls: list[int] = []

    def poll() -> int | None:
        polls.append(1)
        return 1 if after is not None and len(polls) >= after else None

    return SimpleNamespace(poll=poll)


def test_one_that_ends_is_begun_again() -> None:
    begun: list[SimpleNamespace] = []

    def begin() -> SimpleNamespace:
        begun.append(ends(3 if len(begun) < 1 else None))
        return begun[-1]

    come_up(begin, lambda: len(begun) == 2, lambda: "why", rest=lambda: None)
    assert len(begun) == 2


def test_one_that_never_comes_says_why_each_time_and_no_attempt_waits_for_a_dead_one() -> None:
    words = iter(f"reason {number}" for number in range(9))
    rests: list[None] = []
    with pytest.raises(AssertionError, match=r"attempt 1 ended with status 1: reason 0\n.*reason 1\n.*reason 2") as why:
        come_up(lambda: ends(2), lambda: False, lambda: next(words), rest=lambda: rests.append(None))
    assert str(why.value).count("attempt") == ATTEMPTS
    assert len(rests) == ATTEMPTS


def test_one_that_hangs_is_given_up() -> None:
    ticks = iter(range(0, 100_000, round(HUNG_SECONDS / 2)))
    with pytest.raises(AssertionError, match="attempt 1 hung: still"):
        come_up(lambda: ends(None), lambda: False, lambda: "still", rest=lambda: None, clock=lambda: float(next(ticks)))


def test_one_that_is_there_is_up_even_if_it_has_ended_since() -> None:
    come_up(lambda: ends(1), lambda: True, lambda: "", rest=lambda: None)
