"""Gaps as a reader and as a token sees them."""

import pytest

from benchmarks.long_prompts import Arrival, Heard, percentile, summary


def test_percentiles() -> None:
    assert percentile(range(100), 0.99) == 99
    assert percentile(range(1000), 0.5) == 500
    assert percentile([7.0], 0.99) == 7.0


def test_gaps_are_those_of_what_came_in_the_time() -> None:
    heard = Heard({1: [(0.0, 1), (1.0, 4), (3.0, 1)], 2: [(0.5, 2), (1.5, 1)]})
    assert heard.tokens(1) == 6
    assert heard.tokens(3) == 0
    assert heard.gaps([1, 2], 0.0, 1.5) == [(1000.0, 4), (1000.0, 1)]
    assert heard.gaps([1, 2], 1.5, 3.0) == [(2000.0, 1)]


def test_a_gap_that_brings_several_tokens_is_shared_out_among_them() -> None:
    row = summary([Arrival([(16.0, 4)] * 50, [(20.0, 1)] * 50, 2.0), Arrival([(16.0, 4)], [(20.0, 1)], 3.0)])
    assert row["calm_p99_ms"] == 16.0
    assert row["calm_token_p99_ms"] == 4.0
    assert row["p99_ratio"] == pytest.approx(1.25)
    assert row["token_p99_ratio"] == pytest.approx(5.0)
    assert row["first_token_seconds"] == 2.5
