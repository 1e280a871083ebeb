"""No stream is cut, wrong or forgotten, whatever befalls the replicas."""

import pytest

from tests.simulation.run import Outcome, run
from tests.simulation.virtual import Stuck, VirtualLoop

SEEDS, PIECE = 1_000, 100


@pytest.mark.parametrize("first", range(0, SEEDS, PIECE))
def test_every_promise_is_kept(first: int) -> None:
    seen = Outcome()
    for seed in range(first, first + PIECE):
        seen.add(run(seed))
    assert seen.whole > 8 * PIECE  # of 12 streams each
    assert seen.deaths > 2 * PIECE
    assert min(seen.late, seen.left, seen.refused, seen.given_up) > 0


def test_a_seed_tells_the_same_story_again() -> None:
    assert run(7) == run(7)


def test_who_waits_for_nothing_is_noticed() -> None:
    loop = VirtualLoop()
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.close()
