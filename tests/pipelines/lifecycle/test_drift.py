"""What the counts of two moments say of the time between them."""

import pytest

from pipelines.lifecycle.drift import Counts, between, read

TEXT = """
# HELP vllm:time_to_first_token_seconds x
vllm:time_to_first_token_seconds_bucket{{le="0.1",model_name="chat",replica="a"}} {fast}
vllm:time_to_first_token_seconds_bucket{{le="1.0",model_name="chat",replica="a"}} {all}
vllm:time_to_first_token_seconds_bucket{{le="+Inf",model_name="chat",replica="a"}} {all}
vllm:time_to_first_token_seconds_sum{{model_name="chat",replica="a"}} {sum}
vllm:time_to_first_token_seconds_bucket{{le="+Inf",model_name="other",replica="b"}} 900.0
vllm:request_success_total{{finished_reason="stop",model_name="chat",replica="a"}} {stop}
vllm:request_success_total{{finished_reason="length",model_name="chat",replica="c"}} {cut}
vllm:request_success_total{{finished_reason="abort",model_name="chat",replica="a"}} {abort}
"""


def counts(fast: float, slow: float, stop: float, cut: float, abort: float, seconds: float = 0.0) -> Counts:
    text = TEXT.format(fast=fast, all=fast + slow, sum=seconds, stop=stop, cut=cut, abort=abort)
    return read(text, "chat")


def test_shares_and_percentiles_are_of_the_time_between():
    statistics, answers = between(counts(100, 0, 100, 0, 0, 5.0), counts(150, 50, 180, 10, 10, 45.0))
    assert answers == 100
    assert statistics["abort_rate"] == statistics["cut_rate"] == pytest.approx(0.1)
    assert statistics["mean_ttft"] == pytest.approx(0.4)
    assert statistics["p50_ttft"] == pytest.approx(0.1)
    assert statistics["p90_ttft"] == pytest.approx(0.1 + 0.9 * 0.8)
    assert "p50_itl" not in statistics, "what nobody has counted is not said"


def test_of_what_is_beyond_the_last_bound_that_bound_is_said():
    before = Counts({"ttft": {0.1: 0.0, float("inf"): 0.0}}, {}, {"stop": 0.0})
    after = Counts({"ttft": {0.1: 1.0, float("inf"): 10.0}}, {}, {"stop": 10.0})
    assert between(before, after)[0]["p90_ttft"] == 0.1


def test_nothing_is_said_of_a_gateway_that_began_anew_or_answered_nobody():
    there = counts(100, 0, 100, 0, 0)
    assert between(there, there) == ({}, 0)
    assert between(there, counts(5, 0, 5, 0, 0)) == ({}, 0)
    assert between(there, Counts()) == ({}, 0)
    assert between(Counts(), read("no metrics at all", "chat")) == ({}, 0)
