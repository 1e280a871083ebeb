"""When to come again: a guess from the queue and from how long sequences stayed of late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.turnover import LONGEST_SECONDS, Intake, Standing, Stay, retry_after_seconds
from actors.messages import SamplingParams, Submit
from cluster.errors import Overloaded
from tests.actors.engine.remembering import engine


@pytest.mark.parametrize(
    ("waiting", "running", "stay", "seconds"),
    [
        (256, 64, 2.0, 8),
        (256, 64, 2.1, 9),
        (256, 64, 100.0, LONGEST_SECONDS),
        (1, 64, 0.01, 1),
        (0, 0, 0.0, 1),
        (10, 0, 3.0, 30),
        (3, 1, 0.0, 1),
    ],
)
def test_the_queue_takes_its_turns(waiting: int, running: int, stay: float, seconds: int) -> None:
    assert retry_after_seconds(waiting, running, stay) == seconds


@given(st.integers(0, 2**31), st.integers(0, 4096), st.floats(0, 1e12))
def test_it_is_always_a_wait_that_can_be_asked_for(waiting: int, running: int, stay: float) -> None:
    assert 1 <= retry_after_seconds(waiting, running, stay) <= LONGEST_SECONDS


def test_what_is_known_follows_what_happens() -> None:
    stay = Stay()
    assert stay.seconds(oldest=3.0) == 3.0
    stay.paced(0.1)
    assert stay.seconds(oldest=3.0) == 3.0
    stay.learn(100)
    assert stay.seconds(oldest=3.0) == 10.0
    for _ in range(60):
        stay.learn(10)
    assert stay.seconds(oldest=3.0) == pytest.approx(1.0, abs=0.05)


def test_steps_that_became_slower_are_foreseen_before_anybody_has_ended() -> None:
    stay = Stay()
    for _ in range(100):
        stay.paced(0.01)
    for _ in range(20):
        stay.learn(100)
    assert stay.seconds(oldest=0.0) == pytest.approx(1.0)
    for _ in range(60):
        stay.paced(0.025)
    assert stay.seconds(oldest=0.0) == pytest.approx(2.5, rel=0.05)


def test_a_full_engine_says_it_and_a_busier_one_says_more() -> None:
    made, _ = engine(running_sequences=2, queued_sequences=3, blocks=400)
    params = SamplingParams(temperature=0.0, max_tokens=1000, ignore_eos=True)

    def refused() -> int:
        with pytest.raises(Overloaded) as caught:
            made.add(Submit(0, (1,), params, seed=0))
        return caught.value.retry_after_seconds

    for _ in range(5):
        made.add(Submit(0, (1,), params, seed=0))
    assert refused() == 1, "nothing is known yet"
    for _ in range(5):
        made.step()
    early = refused()
    for _ in range(5):
        made.step()
    assert 1 < early < refused() <= LONGEST_SECONDS


def test_those_who_ended_of_late_count_and_not_who_has_run_for_long() -> None:
    made, _ = engine(running_sequences=2, queued_sequences=7, blocks=400)
    short = SamplingParams(temperature=0.0, max_tokens=1)
    long = SamplingParams(temperature=0.0, max_tokens=1000, ignore_eos=True)
    made.add(Submit(0, (1,), long, seed=0))
    for _ in range(30):
        made.add(Submit(0, (2,), short, seed=0))
        made.step()
    for _ in range(7):
        made.add(Submit(0, (3,), long, seed=0))
        made.step()
    with pytest.raises(Overloaded) as caught:
        for _ in range(20):
            made.add(Submit(0, (3,), long, seed=0))
    assert caught.value.retry_after_seconds < LONGEST_SECONDS / 2


def test_prompts_are_taken_in_as_fast_as_they_were_of_late() -> None:
    intake = Intake()
    intake.learn(0, 5.0)
    assert intake.token_seconds == 0.0
    intake.learn(100, 0.1)
    intake.learn(0, 5.0)
    assert intake.token_seconds == pytest.approx(0.001)
    for _ in range(400):
        intake.learn(100, 0.3)
    assert intake.token_seconds == pytest.approx(0.003, rel=0.01)


def test_a_queue_that_stands_is_told_from_a_burst() -> None:
    standing = Standing(0.0)
    standing.learn(True, 10.0)
    assert standing.share(10.0) == 0.0
    assert standing.share(10.5) < 0.2
    assert standing.share(20.0) > 0.95
    standing.learn(False, 20.0)
    assert standing.share(21.0) > 0.5
    assert standing.share(30.0) < 0.05
    assert standing.share(0.0) == standing.share(20.0), "clocks that go back change nothing"


def test_a_queue_that_is_kept_short_stands_as_well() -> None:
    made, _ = engine(running_sequences=1, queued_sequences=20, blocks=400)
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    for _ in range(300):
        if not made.load.waiting:
            made.add(Submit(0, (1,), params, seed=0))
        made.step()
    assert made.load.standing > 0.9


def test_an_engine_says_how_long_its_queue_has_stood() -> None:
    made, _ = engine(running_sequences=1, queued_sequences=20, blocks=400)
    params = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
    for place in range(10):
        made.add(Submit(place, (1,), params, seed=0))
    for _ in range(150):
        made.step()
    assert made.load.standing > 0.9
    while made.busy:
        made.step()
    for _ in range(10):
        assert made.load.standing >= made.load.standing, "it is forgotten while nothing is to do"
    assert made.load.standing < 0.1
