"""As many run at once as are worth it: where a step grows too long by them, and nowhere else, the next one waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.worth import Worth, rungs
from actors.messages import SamplingParams, Submit
from cluster.scheduling.admission import MOST_URGENT
from tests.actors.engine.remembering import engine

MOST = 64


def measured(step: float, decode: float, stretch: float | None = 3.0, most: int = MOST) -> Worth:
    """Of a machine on which a step takes `step` seconds and `decode` more for a sequence, looked at as leaders do."""
    worth = Worth(most, stretch)
    for count in rungs(most):
        worth.learn(count, step + count * decode)
        if worth.places < count:
            break
    return worth


@pytest.mark.parametrize(
    ("step", "decode", "places"),
    [
        (0.008, 0.001, 19),  # 27 ms is thrice what one takes
        (0.020, 0.0001, MOST),  # the weights are most of it: 64 cost hardly more than one
        (0.000, 0.010, 8),  # each takes as long as alone; a few always run
        (0.0001, 0.0001, 9),  # 0.6 ms would be thrice, but nobody can see a millisecond
    ],
)
def test_a_step_lasts_at_most_thrice_what_it_lasts_for_one(step: float, decode: float, places: int) -> None:
    assert measured(step, decode).places == places


@given(
    st.floats(0.001, 1.0), st.floats(1e-6, 0.1), st.floats(1.1, 100.0), st.integers(1, 4096)
)  # fmt: skip
def test_that_holds_on_any_machine(step: float, decode: float, stretch: float, most: int) -> None:
    places = measured(step, decode, stretch, most).places
    assert min(8, most) <= places <= most
    if places > 8:
        assert step + places * decode <= stretch * (step + decode) * (1 + 1e-9)
    if places < most:
        assert step + (places + 1) * decode > stretch * (step + decode) * (1 - 1e-9) or places == 8


def test_nothing_is_held_back_before_it_was_measured_nor_without_a_bound() -> None:
    assert Worth(MOST, 3.0).places == MOST
    assert measured(0.0, 1.0, stretch=None).places == MOST


def test_one_slow_step_among_many_says_little() -> None:
    worth = measured(0.008, 0.001)
    for turn in range(200):
        worth.learn(16, 0.024 * (5 if turn % 20 == 0 else 1))
    assert 16 <= worth.places <= 22


def test_a_step_that_something_held_up_hides_no_places() -> None:
    """Eight at once last no longer than one after the other."""
    worth = Worth(MOST, 3.0)
    for count, seconds in ((1, 0.008), (2, 0.009), (4, 0.010), (8, 0.011), (16, 1.0)):
        worth.learn(count, seconds)
    assert worth.places == MOST


def test_what_became_faster_is_seen() -> None:
    worth = measured(0.008, 0.001)
    for _ in range(20):
        worth.learn(19, 0.010)
    assert worth.places > 30


def test_the_rungs_of_a_ladder() -> None:
    assert rungs(1) == [1]
    assert rungs(2) == [1, 2]
    assert rungs(48) == [1, 2, 4, 8, 16, 32, 48]
    assert rungs(64) == [1, 2, 4, 8, 16, 32, 64]


def test_who_is_beyond_waits_unless_it_has_run_already() -> None:
    made, _ = engine(running_sequences=8, blocks=400, batch_stretch=None)
    made.worth.places = 4
    params = SamplingParams(temperature=0.0, max_tokens=1000, ignore_eos=True)
    for place in range(2):
        made.add(Submit(place, (1,), params, seed=0))
    made.step()
    for place in range(2, 8):
        made.add(Submit(place, (1,), params, seed=0))
    for _ in range(3):
        made.step()
    assert (made.load.running, made.load.waiting, made.load.places) == (4, 4, 4)
    made.add(Submit(8, (1,), params, seed=0, priority=MOST_URGENT - 1))
    made.step()
    assert (made.load.running, made.load.waiting) == (5, 4)
