"""States and moves of a run, and how far one is."""

import pytest

from cluster.errors import Conflict
from pipelines.lifecycle import run as of_runs
from pipelines.lifecycle.run import ACTIVE, LEFT, MOVES, OVER, UNDER_WAY, Event, Run, State, Step, moved, progress
from pipelines.lifecycle.run import upcoming as upcoming_of


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_state_with_every_event(state, event):
    if (state, event) in MOVES:
        assert moved("r-1", state, event) is MOVES[state, event]
    else:
        with pytest.raises(Conflict, match=f"run r-1 is {state}"):
            moved("r-1", state, event)


def test_what_is_over_stays_so_but_for_what_failed():
    for state in State:
        ways = {event for at, event in MOVES if at is state}
        if state is State.FAILED:
            assert ways == {Event.DRIVEN, Event.CANCEL}
        else:
            assert bool(ways) is (state in UNDER_WAY)


def test_how_far_a_run_is():
    steps = (Step("train", OVER, share=1.0), Step("evaluate", ACTIVE, share=0.5), Step("push", LEFT), Step("live"))
    run = Run("r-1", "r", "chat", State.RUNNING, "", "", None, {}, "", 0.0, None, "", steps)
    assert progress(run) == pytest.approx(2.5 / 4)
    assert upcoming_of(steps) is steps[1]
    assert upcoming_of(steps[:1]) is None


def test_a_branch_tells_which_run_it_would_be_of():
    assert of_runs.run_of(of_runs.branch("tune-1")) == "tune-1"
    assert of_runs.run_of("tune-1") == of_runs.run_of("fix-run-tune-1") == ""
