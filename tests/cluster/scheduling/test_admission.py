"""Who may wait is let in, whoever would wait too long is told when to come again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduling.admission import (
    LONGEST_AWAY_SECONDS,
    LONGEST_SECONDS,
    SHARE,
    SHORTEST_SECONDS,
    STANDING_SECONDS,
    STANDING_SHARE,
    STANDING_TURNS,
    Queue,
    Rules,
    away_seconds,
    patience,
    wait_seconds,
)

SECOND = Rules(queue_seconds=1.0)
QUEUES = st.builds(
    Queue,
    places=st.integers(0, 4096),
    running=st.integers(0, 4096),
    ahead=st.integers(0, 10_000),
    tokens=st.integers(0, 10**7),
    stay_seconds=st.floats(0, 1e4),
    token_seconds=st.floats(0, 10),
    standing=st.floats(0, 1),
)
DEADLINES = st.none() | st.floats(0.001, 1e6)
RULES = st.builds(Rules, queue_seconds=st.none() | st.floats(0, 1e4))


@pytest.mark.parametrize(
    ("queue", "seconds"),
    [
        (Queue(8, running=7, stay_seconds=4.0), 0.0),
        (Queue(8, running=8, stay_seconds=4.0), 0.5),  # the next of eight that each stay 4 s leaves
        (Queue(8, running=8, ahead=7, stay_seconds=4.0), 4.0),
        (Queue(8, running=2, ahead=3, stay_seconds=4.0), 0.0),  # places for all
        (Queue(8, running=2, tokens=1_000, token_seconds=0.001), 1.0),
        (Queue(8, running=8, ahead=7, tokens=1_000, stay_seconds=4.0, token_seconds=0.001), 4.0),
        (Queue(8, running=8, ahead=100), 0.0),  # nothing was measured yet
        (Queue(0), 0.0),
    ],
)
def test_a_wait_is_what_must_end_or_be_computed_first(queue: Queue, seconds: float) -> None:
    assert wait_seconds(queue) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("stay", "rules", "seconds"),
    [
        (0.001, Rules(), SHORTEST_SECONDS),
        (4.0, Rules(), 4.0 * SHARE),
        (12.0, Rules(), LONGEST_SECONDS),
        (1000.0, Rules(), STANDING_TURNS * 125.0),  # one of eight leaves in that time
        (4.0, Rules(queue_seconds=0.3), 0.3),
        (4.0, Rules(queue_seconds=60.0), 60.0),
    ],
)
def test_one_waits_for_as_long_as_it_is_worth(stay: float, rules: Rules, seconds: float) -> None:
    assert patience(Queue(8, stay_seconds=stay), 10, None, rules) == seconds


def test_a_deadline_leaves_time_for_the_prompt() -> None:
    queue = Queue(8, running=8, stay_seconds=4.0, token_seconds=0.001)  # half a second's wait
    assert away_seconds([queue], 400, 1.0, SECOND) is None
    assert away_seconds([queue], 600, 1.0, SECOND) == 1
    assert away_seconds([queue], 600, 2.0, SECOND) is None


def test_the_best_of_all_replicas_decides() -> None:
    full = Queue(8, running=8, ahead=40, stay_seconds=4.0)
    assert away_seconds([full], 10, None, SECOND) == 20  # 41 turns of half a second, less the one that it may wait
    assert away_seconds([full, Queue(8, running=8, stay_seconds=4.0)], 10, None, SECOND) is None
    assert away_seconds([], 10, None, SECOND) is None


@given(st.lists(QUEUES, min_size=1), st.integers(0, 10**6), DEADLINES, RULES)
def test_a_refusal_names_a_time_that_can_be_asked_for(
    queues: list[Queue], tokens: int, deadline: float | None, rules: Rules
) -> None:
    away = away_seconds(queues, tokens, deadline, rules)
    assert away is None or 1 <= away <= LONGEST_AWAY_SECONDS


@given(QUEUES, st.integers(0, 10**6), DEADLINES, RULES)
def test_who_has_nothing_before_it_is_let_in(queue: Queue, tokens: int, deadline: float | None, rules: Rules) -> None:
    idle = Queue(max(1, queue.places), stay_seconds=queue.stay_seconds, token_seconds=queue.token_seconds)
    assert away_seconds([queue, idle], tokens, deadline, rules) is None


@given(QUEUES, st.integers(0, 10**6), DEADLINES, RULES)
def test_who_is_let_in_waits_no_longer_than_it_may(
    queue: Queue, tokens: int, deadline: float | None, rules: Rules
) -> None:
    if away_seconds([queue], tokens, deadline, rules) is None and wait_seconds(queue):
        turn = STANDING_TURNS * queue.stay_seconds / max(1, queue.places)
        longest = max(LONGEST_SECONDS, turn) if rules.queue_seconds is None else rules.queue_seconds
        assert wait_seconds(queue) <= min(longest, deadline or longest)


@given(QUEUES, st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 10**6), DEADLINES, RULES)
def test_more_before_it_never_lets_it_in(
    queue: Queue, sequences: int, more: int, tokens: int, deadline: float | None, rules: Rules
) -> None:
    busier = Queue(
        queue.places,
        queue.running,
        queue.ahead + sequences,
        queue.tokens + more,
        queue.stay_seconds,
        queue.token_seconds,
        queue.standing,
    )
    if away_seconds([queue], tokens, deadline, rules) is not None:
        assert away_seconds([busier], tokens, deadline, rules) is not None


@pytest.mark.parametrize(
    ("stay", "standing", "seconds"),
    [
        (8.0, 0.0, 8.0 * SHARE),
        (8.0, 0.5, 8.0 * SHARE),  # bursts make a queue stand for half of the time
        (8.0, 0.7, 8.0 * (SHARE + STANDING_SHARE) / 2),
        (8.0, 0.9, 8.0 * STANDING_SHARE),
        (8.0, 1.0, 8.0 * STANDING_SHARE),
        (0.001, 1.0, STANDING_SECONDS),
        (150.0, 1.0, LONGEST_SECONDS),
    ],
)
def test_a_queue_that_stands_is_kept_short(stay: float, standing: float, seconds: float) -> None:
    queue = Queue(64, stay_seconds=stay, standing=standing)
    assert patience(queue, 0, None, Rules()) == pytest.approx(seconds)
    assert patience(queue, 0, None, SECOND) == 1.0, "who says how long means it"


def test_where_places_are_few_one_waits_for_each_of_them() -> None:
    """Else a place that is left stays empty until somebody asks in that very moment."""
    queue = Queue(8, running=8, stay_seconds=4.0, standing=1.0)
    assert wait_seconds(queue) == 0.5
    assert away_seconds([queue], 0, None, Rules()) is None
    assert away_seconds([replace(queue, ahead=1)], 0, None, Rules()) == 1
