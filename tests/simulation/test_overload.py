"""Five times what can be served, for five minutes: answers stay as many and as quick, and then all is as before."""

import pytest

from actors.settings import Limits
from benchmarks.simulated_fleet import Machine
from cluster.scheduling.admission import Rules
from tests.simulation.overload import Phase, Seen, play

LIMITS = Limits(block_tokens=16, running_sequences=16, queued_sequences=100_000)
FULL = 4.0  # requests a second, the most that one replica can serve: more bring no more tokens
OVER, AFTER = 165.0, 465.0  # seconds: when the load begins and ends
NORMAL, CALM = 5.0, 165.0


@pytest.fixture(scope="module")
def seen() -> Seen:
    return play([Phase(FULL / 2, OVER), Phase(5 * FULL, AFTER), Phase(FULL / 2, AFTER + CALM)], Rules(), LIMITS)


@pytest.fixture(scope="module")
def most() -> float:
    """Tokens a second of a replica that always has something to do."""
    return play([Phase(2 * FULL, 40.0)], None, LIMITS).tokens_per_second(10.0, 40.0)


def test_answers_stay_as_many(seen: Seen, most: float) -> None:
    for since in range(int(OVER), int(AFTER), 60):
        assert seen.tokens_per_second(since, since + 60) >= 0.9 * most


def test_answers_stay_as_quick(seen: Seen) -> None:
    first, whole = seen.first_p99(5.0, OVER), seen.whole_p99(5.0, OVER)
    for since in range(int(OVER), int(AFTER), 60):
        assert seen.first_p99(since, since + 60) <= 2 * first
        assert seen.whole_p99(since, since + 60) <= 2 * whole


def test_five_seconds_after_it_all_is_as_before(seen: Seen) -> None:
    since, until = AFTER + NORMAL, AFTER + CALM
    assert seen.first_p99(since, until) <= 1.25 * seen.first_p99(5.0, OVER)
    assert seen.whole_p99(since, until) <= 1.25 * seen.whole_p99(5.0, OVER)
    refused = sum(when >= since for when, _ in seen.refused)
    came = sum(each.arrived >= since for each in seen.requests)
    assert refused <= 0.15 * came  # now and then several come at once, as before


def test_whoever_is_let_in_is_answered_whole(seen: Seen) -> None:
    assert all(len(each.tokens) == each.wanted for each in seen.requests)
    assert all(1 <= away <= 60 for _, away in seen.refused)


def test_a_queue_that_only_has_a_length_makes_everybody_wait() -> None:
    """What the other tests would tell if nobody were refused."""
    flooded = play([Phase(FULL / 2, 20.0), Phase(5 * FULL, 40.0)], None, LIMITS)
    assert flooded.first_p99(20.0, 40.0) > 10 * flooded.first_p99(5.0, 20.0)


def test_several_replicas_share_it(most: float) -> None:
    """One of the four may be thought slow, and get nothing for half a minute: then nobody is let in for its sake."""
    four = play([Phase(2 * FULL, 20.0), Phase(20 * FULL, 45.0)], Rules(), LIMITS, replicas=4)
    assert four.tokens_per_second(25.0, 45.0) >= 0.9 * 3 * most
    assert four.first_p99(20.0, 45.0) <= 2 * four.first_p99(5.0, 20.0)


def test_no_more_run_at_once_than_are_worth_it() -> None:
    """Where a sequence costs a fifth of a step, 64 at once make each twelve times slower, and hardly more tokens."""
    machine = Machine(step=0.01, prompt_token=0.00005, decode=0.002)
    phases = [Phase(2.0, 60.0), Phase(20.0, 180.0)]
    seen, bound = {}, {}
    for stretch in (None, 2.0):
        limits = LIMITS.model_copy(update={"running_sequences": 64, "batch_stretch": stretch})
        bound[stretch] = play([Phase(20.0, 40.0)], None, limits, machine=machine).tokens_per_second(10.0, 40.0)
        seen[stretch] = play(phases, Rules(), limits, machine=machine)
    assert seen[2.0].tokens_per_second(60.0, 180.0) >= 0.65 * bound[None]
    assert seen[2.0].whole_p99(70.0, 170.0) <= 2 * seen[2.0].whole_p99(5.0, 60.0)
    assert seen[None].whole_p99(70.0, 170.0) > 3 * seen[None].whole_p99(5.0, 60.0)
