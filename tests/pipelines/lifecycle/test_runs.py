"""Where runs are kept: of two who are at one, one wins."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.errors import Conflict, NotFound
from pipelines.lifecycle.run import Event, State, upcoming
from pipelines.lifecycle.runs import Runs
from pipelines.lifecycle.tables import Tables
from pipelines.lifecycle.watched import Watches

DECLARED = {"name": "tune", "model": "chat"}
STEPS = [("train", True), ("push", False), ("live", True)]


class Clock:
    """Time that stands."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tables(tmp_path):
    return Tables(f"sqlite:///{tmp_path / 'runs.db'}")


@pytest.fixture
def runs(tables):
    return Runs(tables, Clock())


def begun(runs, **more):
    return runs.begin(DECLARED, STEPS, "by hand", "ann", {"file": None, "variables": {}}, **more)


def test_many_that_begin_at_once_have_numbers_of_their_own(runs):
    begun(runs)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: begun(runs), range(16)))
    assert sorted(made, key=lambda name: int(name[5:])) == [f"tune-{number}" for number in range(2, 18)]


def test_a_step_is_left_once_and_only_while_its_run_runs(runs):
    run = begun(runs)
    with pytest.raises(Conflict, match="is queued and not running"):
        runs.enter(run, "train")
    runs.move(run, Event.DRIVEN)
    runs.enter(run, "train")
    runs.keep(run, "train", {"base": "v1"})
    runs.leave(run, "train", {"loss": 0.5}, {"model": "x"}, "done")
    found = runs.find(run).step("train")
    assert (found.numbers, found.made, found.state) == ({"loss": 0.5}, {"base": "v1", "model": "x"}, "done")
    with pytest.raises(Conflict, match="the step train"):
        runs.leave(run, "train", {"loss": 0.1}, {}, "again")
    runs.move(run, Event.CANCEL, "cancelled")
    with pytest.raises(Conflict, match="is cancelled and not running"):
        runs.keep(run, "live", {"before": "v1"})
    assert runs.tell(run, "live", 0.5, "half") is False


@pytest.mark.parametrize(("event", "said"), [(Event.BROKE, "failed"), (Event.CANCEL, "cancelled")])
def test_the_step_at_which_a_run_ends_says_so_and_its_clock_stands(tables, event, said):
    clock = Clock()
    runs = Runs(tables, clock)
    run = begun(runs)
    runs.move(run, Event.DRIVEN)
    runs.enter(run, "train")
    clock.now = 130.0
    runs.move(run, event, "why")
    clock.now = 500.0
    found = runs.find(run)
    assert [step.state for step in found.steps] == [said, "left out", "pending"]
    assert (found.step("train").began, found.step("train").ended) == (100.0, 130.0)
    assert upcoming(found.steps).name == "train"
    assert runs.tell(run, "train", 0.5, "half") is False
    assert runs.find(run).step("train").share == 0.0


def test_a_failed_step_that_is_taken_up_runs_again(runs):
    run = begun(runs)
    runs.move(run, Event.DRIVEN)
    runs.enter(run, "train")
    runs.move(run, Event.BROKE, "why")
    runs.move(run, Event.DRIVEN)
    runs.enter(run, "train")
    found = runs.find(run).step("train")
    assert (found.state, found.ended, found.attempts) == ("running", None, 2)
    runs.leave(run, "train", {}, {}, "done")
    assert runs.find(run).step("train").state == "done"


def test_what_a_run_left_out_is_not_to_be_done(runs):
    assert [step.state for step in runs.find(begun(runs)).steps] == ["pending", "left out", "pending"]


def test_the_latest_come_first_and_those_under_way_are_known(runs):
    one, two = begun(runs), begun(runs)
    assert [run.id for run in runs.all()] == [two, one]
    runs.move(one, Event.DRIVEN)
    runs.move(one, Event.FINISHED)
    assert runs.done() == {"tune": one}
    assert runs.busy("tune")
    runs.move(two, Event.CANCEL)
    assert not runs.busy("tune")
    assert [run.id for run in runs.all(states=[State.DONE])] == [one]


def test_of_two_that_watch_one_begins_a_run(tables, runs):
    Watches(tables).add(DECLARED, {}, "ann")
    begun(runs, seen=(None, {"clock": 1}))
    with pytest.raises(Conflict, match="another watch"):
        begun(runs, seen=(None, {"clock": 1}))
    assert len(runs.all()) == 1
    Watches(tables).add(DECLARED, {}, "bob")
    (watched,) = Watches(tables).all()
    assert (watched.by, watched.seen) == ("bob", {"clock": 1}), "what was seen stays"
    Watches(tables).remove(["tune"])
    with pytest.raises(NotFound, match="watched pipeline"):
        Watches(tables).remove(["tune"])


def test_a_run_that_is_not_there_is_named_with_those_that_are(runs):
    run = begun(runs)
    with pytest.raises(NotFound, match=f"no run tune-9; there is {run}"):
        runs.find("tune-9")
