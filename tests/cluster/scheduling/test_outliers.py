"""Failing and slow replicas get nothing for a while, then one trial."""

import random

import pytest

from cluster.scheduling.outliers import Outliers, Rules

RULES = Rules(errors=3, slow=2.0, samples=4, seconds=30.0, longest=100.0, share=0.5)


def fleet(*names: str) -> Outliers:
    made = Outliers(RULES)
    for name in names:
        made.add(name)
    return made


def answers(made: Outliers, name: str, rate: float, count: int = 8) -> None:
    for _ in range(count):
        made.good(name, 0.0, rate)


def test_errors_in_a_row_put_it_out_and_a_success_between_does_not() -> None:
    made = fleet("a", "b")
    for _ in range(2):
        made.bad("a", 0.0)
    made.good("a", 0.0, 1.0)
    for _ in range(2):
        made.bad("a", 0.0)
    assert made.usable(0.0) == ["a", "b"]
    made.bad("a", 0.0)
    assert made.usable(0.0) == ["b"]
    assert made.out() == ["a"]


def test_when_its_time_is_over_one_request_tries_it() -> None:
    made = fleet("a", "b")
    for _ in range(3):
        made.bad("a", 0.0)
    assert made.usable(29.9) == ["b"]
    assert made.usable(30.0) == ["a"]
    made.chosen("a", 30.0)
    assert made.usable(30.0) == ["b"]  # nobody else meanwhile
    made.good("a", 31.0, 1.0)
    assert made.usable(31.0) == ["a", "b"]


def test_a_failed_trial_takes_twice_as_long_and_never_for_ever() -> None:
    made, now = fleet("a", "b"), 0.0
    for _ in range(3):
        made.bad("a", now)
    for seconds in (30.0, 60.0, 100.0, 100.0):
        assert made.usable(now + seconds - 0.1) == ["b"]
        now += seconds
        assert made.usable(now) == ["a"]
        made.chosen("a", now)
        made.bad("a", now)


def test_a_trial_that_ended_without_a_word_is_repeated() -> None:
    made = fleet("a", "b")
    for _ in range(3):
        made.bad("a", 0.0)
    made.chosen("a", 30.0)
    made.unheard("a")
    assert made.usable(30.0) == ["a"]


def test_a_slow_one_is_put_out_by_what_the_others_take() -> None:
    made = fleet("a", "b", "c")
    for name in ("a", "b"):
        answers(made, name, 1.0)
    answers(made, "c", 1.9)
    assert made.out() == []
    answers(made, "c", 2.1)
    assert made.out() == ["c"]


def test_single_slow_answers_are_forgiven() -> None:
    made = fleet("a", "b")
    answers(made, "a", 1.0)
    for rate in (1.0, 50.0, 1.0, 1.0, 1.0, 50.0, 1.0, 1.0):
        made.good("b", 0.0, rate)
    assert made.out() == []


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (9, 4)])
def test_never_more_than_a_share_are_out(count: int, most: int) -> None:
    names = [f"r{index}" for index in range(count)]
    made = fleet(*names)
    for name in names:
        for _ in range(3):
            made.bad(name, 0.0)
    assert len(made.out()) == most
    assert len(made.usable(0.0)) == count - most


def test_who_is_unknown_is_taken_for_usual_and_who_is_gone_is_forgotten() -> None:
    made = fleet("a", "b", "new")
    assert made.rate("a") == 1.0
    answers(made, "a", 3.0)
    answers(made, "b", 3.0)
    assert made.rate("new") == 3.0
    made.remove("a")
    made.remove("never there")
    made.bad("a", 0.0)
    made.good("a", 0.0, 1.0)
    assert made.usable(0.0) == ["b", "new"]


def test_it_comes_back_with_a_clean_record() -> None:
    made = fleet("a", "b")
    for _ in range(3):
        made.bad("a", 0.0)
    made.add("a")  # another bears its name now
    assert made.usable(0.0) == ["a", "b"] or made.usable(0.0) == ["b", "a"]


def test_alike_ones_whose_answers_scatter_stay_in_and_a_slow_one_does_not() -> None:
    dice, made = random.Random(1), Outliers()
    for name in "abcd":
        made.add(name)
    for _ in range(20_000):
        made.good(dice.choice("abcd"), 0.0, dice.lognormvariate(0.0, 0.8))
        assert not made.out()
    answers = 0
    while not made.out():
        answers += 1
        made.good("d", 0.0, 4 * dice.lognormvariate(0.0, 0.8))
        made.good(dice.choice("abc"), 0.0, dice.lognormvariate(0.0, 0.8))
    assert answers < 32
