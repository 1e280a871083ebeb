"""As many run at once as are worth it: where a step grows too long by them, and nowhere else, the next one waits."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.worth import Worth
from actors.messages import SamplingParams, Submit
from cluster.scheduling.admission import MOST_URGENT
from tests.actors.engine.remembering import engine

MOST = 64


def served(worth: Worth, step: float, decode: float, steps: int = 200, least: int = 1) -> Worth:
    """As many at once as there may be, after a first one alone: a step takes `step` seconds and `decode` for each."""
    worth.learn(least, step + least * decode)
    for _ in range(steps):
        worth.learn(worth.places, step + worth.places * decode)
    return worth


@pytest.mark.parametrize(
    ("step", "decode", "places"),
    [
        (0.008, 0.001, 10),  # 18 ms is twice what one takes
        (0.020, 0.0001, MOST),  # the weights are most of it: 64 cost hardly more than one
        (0.000, 0.010, 8),  # each takes as long as alone; a few always run
        (0.0001, 0.00005, 18),  # 0.3 ms would be twice, but nobody can see a millisecond
    ],
)
def test_a_step_lasts_at_most_twice_what_it_lasts_for_one(step: float, decode: float, places: int) -> None:
    worth = Worth(MOST, 2.0)
    assert worth.places == 8, "before anything is known"
    for _ in range(20):
        served(worth, step, decode, 50)
        assert 0.9 * places <= worth.places <= 1.25 * places


@given(st.floats(0.001, 1.0), st.floats(1e-6, 0.1), st.floats(1.1, 100.0), st.integers(1, 4096))
def test_that_holds_on_any_machine(step: float, decode: float, stretch: float, most: int) -> None:
    """But for a try further now and then: costs change."""
    worth = Worth(most, stretch)
    ideal = min(most, max(8, (stretch * (step + decode) - step) / decode))
    for _ in range(100):
        served(worth, step, decode, 1)
        assert min(8, most) <= worth.places <= min(most, max(9, 1.3 * ideal + 1))
    served(worth, step, decode, 400)
    assert worth.places >= min(most, int(0.8 * ideal))


def test_without_a_bound_all_run() -> None:
    assert served(Worth(MOST, None), 0.0, 1.0).places == MOST


def test_one_slow_step_among_many_says_little() -> None:
    worth = served(Worth(MOST, 2.0), 0.008, 0.001)
    for turn in range(200):
        places = worth.places
        worth.learn(places, (0.008 + places * 0.001) * (5 if turn % 20 == 0 else 1))
        assert 8 <= worth.places <= 12


@pytest.mark.parametrize("seed", range(5))
def test_a_machine_that_does_other_things_too_moves_places_little(seed: int) -> None:
    """Steps vary by a tenth, one in fifty takes thrice as long, and not all places are taken at any time."""
    dice, worth = random.Random(seed), Worth(MOST, 2.2)
    ideal = 21  # 0.0063 + 21 * 0.0004 is 2.2 times what a step of one takes
    for step in range(4000):
        most = worth.places if step > 1000 else dice.randint(1, worth.places)
        running = max(1, most - dice.choice((0, 0, 0, 1, 2)))
        noise = (1 + abs(dice.gauss(0, 0.1))) * (3 if dice.random() < 0.02 else 1)
        worth.learn(running, (0.0063 + running * 0.0004) * noise)
        if step > 2000:
            assert 0.6 * ideal <= worth.places <= 1.35 * ideal


@pytest.mark.parametrize("power", range(6))
def test_a_step_that_something_held_up_hides_no_places(power: int) -> None:
    """More at once have taken less."""
    worth = Worth(MOST, 2.0)
    for each in range(7):
        worth.learn(1 << each, 0.5 if each == power else 0.010)
    assert worth.places == MOST


def test_a_first_step_that_is_slow_is_forgotten_with_the_next() -> None:
    worth = Worth(MOST, 2.0)
    worth.learn(1, 3.0)
    served(worth, 0.008, 0.001)
    assert worth.places <= 12


def test_what_became_faster_is_seen() -> None:
    worth = served(Worth(MOST, 2.0), 0.008, 0.001)
    assert worth.places <= 12
    served(worth, 0.008, 0.0001, least=worth.places)
    assert worth.places > 40


def test_what_was_slow_for_another_reason_is_tried_again() -> None:
    worth = served(Worth(MOST, 2.0), 0.008, 0.0001)
    assert worth.places == MOST
    for _ in range(300):
        worth.learn(worth.places, 0.100)
    assert worth.places == 8
    for _ in range(2000):
        worth.learn(worth.places, 0.008 + worth.places * 0.0001)
    assert worth.places == MOST


def test_what_is_not_idle_for_long_is_seen_too() -> None:
    """A gang that begins under load: nobody is ever alone there."""
    worth = Worth(MOST, 2.0)
    for _ in range(100):
        worth.learn(worth.places, 0.008 + worth.places * 0.001)
    assert 16 <= worth.places <= 30


def test_who_is_beyond_waits_unless_it_has_run_already() -> None:
    made, _ = engine(running_sequences=8, blocks=400, batch_stretch=None)
    made._worth.places = 4
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


def test_who_was_put_back_for_want_of_room_comes_again_though_all_places_are_taken() -> None:
    made, _ = engine(running_sequences=8, blocks=12, batch_stretch=None)
    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    first = [made.add(Submit(place, (1,), params, seed=0)) for place in range(4)]
    while not made.load.preemptions:
        made.step()
    made._worth.places = 1
    made.add(Submit(4, (1,), params, seed=0))
    together = 0
    while set(first) & made._live.keys():
        made.step()
        together = max(together, made.load.running)
        assert made.load.waiting, "who has not run yet waits for the place"
    assert together > 1
