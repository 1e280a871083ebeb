"""What is told of late: waits, first tokens and arrivals, and nothing of what is long over."""

from actors.engine.lately import WINDOW_SECONDS, Lately, Of
from actors.messages import SamplingParams, Submit
from tests.actors.engine.remembering import engine


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_of_nothing_there_is_nothing() -> None:
    clock = Clock()
    lately = Lately(clock)
    assert lately.ask() == Of()
    clock.now += 1000
    assert lately.ask() == Of()


def test_waits_and_first_tokens_are_means_and_arrivals_a_rate() -> None:
    clock = Clock()
    lately = Lately(clock)
    for key in (1, 2):
        lately.came(key)
    clock.now += 1
    lately.joined(1)
    clock.now += 2
    lately.joined(2)
    lately.joined(2)  # it was put back and joins again
    lately.answered(4.0)
    lately.answered(2.0)
    assert lately.ask() == Of(2.0, 3.0, 2 / (WINDOW_SECONDS + 3))


def test_who_still_waits_counts_while_he_waits() -> None:
    clock = Clock()
    lately = Lately(clock)
    lately.came(1)
    clock.now += 7
    lately.came(2)
    assert lately.ask().waited == 7
    lately.left(1)
    lately.left(1)
    clock.now += 1
    assert lately.ask().waited == 1


def test_a_burst_is_forgotten_after_two_windows_at_the_latest() -> None:
    clock = Clock()
    lately = Lately(clock)
    lately.came(1)
    lately.joined(1)
    lately.answered(5.0)
    clock.now += WINDOW_SECONDS
    assert lately.ask().first_token == 5.0
    clock.now += WINDOW_SECONDS
    assert lately.ask() == Of()


def test_the_engine_tells_of_every_sequence() -> None:
    clock = Clock()
    made, _ = engine()
    made.lately = Lately(clock)
    made.add(Submit(0, (1, 2, 3), SamplingParams(temperature=0.0, max_tokens=2), seed=0))
    gone = made.add(Submit(1, (1, 2, 3), SamplingParams(temperature=0.0, max_tokens=2), seed=0))
    clock.now += 3
    made.cancel(gone)
    assert made.lately.ask().waited == 3
    while made.busy:
        made.step()
    clock.now += 1
    told = made.lately.ask()
    assert (told.waited, told.per_second) == (3.0, 2 / (WINDOW_SECONDS + 4))
    assert told.first_token > 0
