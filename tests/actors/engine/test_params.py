"""Every field of SamplingParams against garbage: InvalidRequest names the field, nothing else comes out."""

import math
import pickle
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.messages import (
    MAX_CHOICES,
    MAX_LOGIT_BIAS,
    MAX_LOGPROBS,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    SamplingParams,
)
from cluster.errors import InvalidRequest

HUGE = 10**400  # no float holds it
VAST = 10**5_000  # Python refuses to print it
NO_NUMBERS = [math.nan, math.inf, -math.inf, True, False, "1", b"1", [], {}, (1,), 1j, object(), HUGE, -HUGE, VAST]
NO_WHOLES = [*NO_NUMBERS, 0.5, 1.0]


class Endless(Sequence):
    """A list that says it is long and cannot be read: its length is looked at first."""

    def __len__(self):
        return 10**9

    def __getitem__(self, index):
        raise AssertionError("read before its length was known")


NO_LISTS = [5, True, 0.5, object(), b"ab", {"a": 1}, {1}]

GARBAGE: dict[str, list[object]] = {
    "n": [*NO_WHOLES, None, 0, -1, MAX_CHOICES + 1, 10**9],
    "temperature": [*NO_NUMBERS, None, -0.1, -1, 100.1, 1e300, -1e-300],
    "top_p": [*NO_NUMBERS, None, 0, 0.0, -0.1, 1.1, 2],
    "top_k": [*NO_WHOLES, None, -2, 2**31],
    "min_p": [*NO_NUMBERS, None, -0.1, 1.1],
    "presence_penalty": [*NO_NUMBERS, None, -2.1, 2.1],
    "frequency_penalty": [*NO_NUMBERS, None, -2.1, 2.1],
    "repetition_penalty": [*NO_NUMBERS, None, 0, 0.0, -1, 100.1],
    "logit_bias": [
        *[value for value in NO_LISTS if not isinstance(value, dict)],
        None, [], "x", [(1, 2)], {-1: 0}, {2**31: 0}, {True: 0}, {"1": 0}, {0.5: 0}, {None: 0}, {HUGE: 0}, {VAST: 0},
        {1: math.nan}, {1: math.inf}, {1: 100.1}, {1: -100.1}, {1: "2"}, {1: None}, {1: True}, {1: HUGE}, {1: VAST},
        dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 0), dict.fromkeys(range(10**6), 1.0),
    ],
    "seed": [*NO_WHOLES, 2**63, -(2**63) - 1],
    "stop": [
        *NO_LISTS, "", [""], ["a", ""], [1], [None], [["a"]], [b"a"], "x" * (MAX_STOP_CHARACTERS + 1),
        ["x"] * (MAX_STOP_STRINGS + 1), ["x"] * 10**5, "\ud800", ["a", "\udfff"],
    ],
    "stop_token_ids": [
        *NO_LISTS, "12", [-1], [2**31], [1.0], [True], ["1"], [None], [[1]], [HUGE], [VAST], [1] * (MAX_LOGIT_BIAS + 1),
        Endless(),
    ],
    "include_stop_str_in_output": [None, 0, 1, "true", [], math.nan],
    "ignore_eos": [None, 0, 1, "true", [], math.nan],
    "skip_special_tokens": [None, 0, 1, "true", [], math.nan],
    "max_tokens": [*NO_WHOLES, 0, -1, 2**31, 10**12],
    "min_tokens": [*NO_WHOLES, None, -1, 17, 2**31],
    "logprobs": [*NO_WHOLES, -1, MAX_LOGPROBS + 1, 10**6],
    "structured_outputs": [5, True, 0.5, math.nan, [], object(), HUGE, {"json": object()}, {"no such form": 1}],
}  # fmt: skip


def test_every_field_has_its_garbage():
    assert {field.name for field in fields(SamplingParams)} == GARBAGE.keys()


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in GARBAGE.items() for v in values],
                         ids=lambda value: value if isinstance(value, str) and value in GARBAGE else "")  # fmt: skip
def test_garbage_is_refused_by_name(field, value):
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param.partition(".")[0] == field  # a field within a field is named by its path
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**500)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(GARBAGE)), anything)
def test_anything_is_taken_or_refused_by_name(field, value):
    try:
        params = SamplingParams(**{field: value})
    except InvalidRequest as error:
        assert error.param is not None
        assert error.param.split(".")[0] == field
        return
    assert all(isinstance(stop, str) for stop in params.stops)
    assert replace(params) == params


@pytest.mark.parametrize(
    "fine",
    [
        {"temperature": 0, "top_p": 1, "min_p": 1, "top_k": -1},
        {"temperature": 100, "top_p": 1e-9, "top_k": 2**31 - 1, "repetition_penalty": 0.01},
        {"n": MAX_CHOICES, "seed": -(2**63), "logprobs": MAX_LOGPROBS},
        {"seed": 2**63 - 1, "logprobs": 0, "max_tokens": None, "min_tokens": 2**31 - 1},
        {"stop": None, "stop_token_ids": None},
        {"stop": ["\n", "x" * MAX_STOP_CHARACTERS] * (MAX_STOP_STRINGS // 2), "stop_token_ids": range(9)},
        {"logit_bias": {0: -100, 2**31 - 1: 100.0}},
        {"logit_bias": dict.fromkeys(range(MAX_LOGIT_BIAS), 1.5)},
        {"max_tokens": 5, "min_tokens": 5},
    ],
)
def test_what_is_just_within_bounds_is_taken(fine):
    params = SamplingParams(**fine)
    assert replace(params) == params
    assert pickle.loads(pickle.dumps(params)) == params


def test_stops_are_kept_as_tuples():
    assert SamplingParams(stop="ab").stops == ("ab",)
    assert SamplingParams(stop=["a", "b"]).stops == ("a", "b")
    assert SamplingParams(stop=None, stop_token_ids=None).stops == SamplingParams().stop_ids == ()
    assert SamplingParams(stop_token_ids=[3, 4]).stop_ids == (3, 4)


def test_greedy_begins_where_a_division_would_overflow():
    assert SamplingParams(temperature=0).greedy
    assert SamplingParams(temperature=9e-6).greedy
    assert not SamplingParams(temperature=1e-5).greedy
