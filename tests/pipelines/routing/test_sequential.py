"""The stated chance of a false alarm, by simulation under continuous looking, and what else intervals promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.routing import sequential


@pytest.mark.parametrize("chance", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_looking_after_every_value_is_wrong_as_seldom_as_stated(chance, alpha):
    """2,000 lives of 2,000 values each: in how many the martingale ever says that the true mean is not it."""
    drawn = np.random.default_rng(7).random((2_000, 2_000)) < chance
    sums = drawn.cumsum(axis=1) - drawn
    before = np.arange(drawn.shape[1])
    likely = (sums + 0.5) / (before + 1.0)  # of a 1 next, by Jeffreys' prior
    steps = np.where(drawn, likely / chance, (1 - likely) / (1 - chance))
    ever = np.log(steps).cumsum(axis=1).max(axis=1) >= -math.log(alpha)
    slack = 3 * math.sqrt(alpha * (1 - alpha) / len(drawn))
    assert ever.mean() <= alpha + slack


def test_it_is_the_product_of_its_steps():
    values, logs = [1, 0, 0, 1, 1, 1, 0], 0.0
    for place, value in enumerate(values):
        likely = (sum(values[:place]) + 0.5) / (place + 1)
        logs += math.log((likely if value else 1 - likely) / (0.3 if value else 0.7))
    assert sequential.evidence(sum(values), len(values), 0.3) == pytest.approx(logs)


def test_values_between_0_and_1_are_covered_too():
    drawn = np.random.default_rng(3).beta(2, 5, (300, 400))
    wrong = 0
    for life in drawn.cumsum(axis=1):
        looks = [sequential.mean(life[count - 1], count, 0.1) for count in range(20, 401, 20)]
        wrong += any(not low <= 2 / 7 <= high for low, high in looks)
    assert wrong / len(drawn) <= 0.1


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0.001, 0.05]))
def test_an_interval_holds_what_was_seen_and_narrows_by_a_looser_alpha(ones, zeros, alpha):
    count = ones + zeros
    low, high = sequential.mean(ones, count, alpha)
    assert 0 <= low <= (ones / count if count else 0.5) <= high <= 1
    loose = sequential.mean(ones, count, 10 * alpha)
    assert low <= loose[0] <= loose[1] <= high


@given(st.integers(0, 2_000), st.sampled_from([0.5, 0.9, 0.99]), st.sampled_from([0.0001, 0.05]))
def test_ranks_are_what_the_martingale_does_not_rule_out(count, level, alpha):
    low, high = sequential.ranks(level, count, alpha)
    much = -math.log(alpha)
    assert 0 <= low <= high <= count
    if low > 0:
        assert sequential.evidence(low - 1, count, level) >= much > sequential.evidence(low, count, level)
    if high < count:
        assert sequential.evidence(high + 1, count, level) >= much > sequential.evidence(high, count, level)


@pytest.mark.parametrize(("size", "ones"), [(40, 36), (40, 2), (150, 120)])
def test_drawing_each_once_is_wrong_as_seldom_as_stated(size, ones):
    """2,000 orders of chance, looked at after every draw."""
    alpha, dice, wrong = 0.05, np.random.default_rng(5), 0
    known = {
        (count, total): sequential._drawn(total, count, ones, size) >= -math.log(alpha)
        for count in range(1, size + 1)
        for total in range(max(0, count - (size - ones)), min(count, ones) + 1)
    }
    for _ in range(2_000):
        sums = (dice.permutation(size) < ones).cumsum()
        wrong += any(known[count, int(total)] for count, total in enumerate(sums, 1))
    assert wrong / 2_000 <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 2_000)


@given(st.integers(1, 200), st.data())
def test_when_all_are_drawn_nothing_is_left_to_be_unsure_of(size, data):
    ones = data.draw(st.integers(0, size))
    assert sequential.share(ones, size, size, 1e-9) == (ones / size, ones / size)
    count = data.draw(st.integers(1, size))
    total = data.draw(st.integers(max(0, count - (size - ones)), min(count, ones)))
    low, high = sequential.share(total, count, size, 0.01)
    assert total / size <= low <= high <= (size - count + total) / size
    for edge, beyond in ((low, low - 1 / size), (high, high + 1 / size)):
        assert sequential._drawn(total, count, round(edge * size), size) < -math.log(0.01)
        if total <= round(beyond * size) <= size - count + total:
            assert sequential._drawn(total, count, round(beyond * size), size) >= -math.log(0.01)


def test_a_large_set_is_as_one_without_end():
    assert sequential.share(30, 40, 10**7, 0.01) == pytest.approx(sequential.mean(30, 40, 0.01), abs=1e-4)
