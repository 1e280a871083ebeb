"""Runs from one end to the other, with hands that need no cluster."""

from contextlib import suppress

import pytest

from actors.registry.aliases import Aliases
from actors.registry.stages import Stages
from cluster.errors import Conflict, Unavailable
from pipelines.lifecycle import starting
from pipelines.lifecycle.drive import alone, drive
from pipelines.lifecycle.places import folder_of
from pipelines.lifecycle.run import Event, State
from tests.pipelines.lifecycle.hands import Made, Place, model

STEPS = ["train", "evaluate", "push", "merge_request", "canary", "live"]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_whole_life(place):
    hands, run = place.hands(), place.begin(place.pipeline())
    assert drive(place.runs, run, place.settings, hands) is State.DONE
    found = place.runs.find(run)
    assert [(step.name, step.state, step.attempts) for step in found.steps] == [(name, "done", 1) for name in STEPS]
    assert hands.done == {"tune": 1, "measure": 2, "rollout": 1, "pause": 1}
    assert place.at("prod") == "v3"
    assert Stages(place.registry).of("chat", "v3") == "live"
    assert found.made("version") == "v3"
    assert found.step("evaluate").numbers["live.exact_match"] == 1.0


def test_what_a_candidate_comes_from_stands_in_the_registry(place):
    run = place.begin(place.pipeline())
    drive(place.runs, run, place.settings, place.hands())
    said = place.registry.show("chat", "v2")
    assert said.metadata["lineage"]["run"] == run
    assert said.metadata["license"] == "mit"
    assert said.metadata["recipe"]["steps"] == 3
    assert said.metadata["metrics"]["exact_match"] == 1.0
    assert len(said.metadata["data"]["digest"]) == 64
    assert said.entry.parents == (place.registry.show("chat", "v1").entry.id,)


def test_one_that_answers_worse_is_stopped_at_evaluation(place):
    hands, run = place.hands({2.0: 0.5}), place.begin(place.pipeline())
    assert drive(place.runs, run, place.settings, hands) is State.STOPPED
    found = place.runs.find(run)
    assert found.reason == (
        "stopped at evaluation: exact_match >= baseline - 0.02 does not hold: it is 0.5, chat@prod has 1"
    )
    assert hands.done == {"tune": 1, "measure": 2}
    assert place.at("prod") == "v1"
    assert place.registry.number("chat", "main") == "v1", "nothing was pushed"
    with pytest.raises(Conflict, match="is stopped for good; `strata runs start tune` begins another"):
        starting.resume(place.settings, run)


def test_one_that_its_canary_takes_back_is_a_candidate_again(place):
    hands, run = place.hands(ends="rolled back"), place.begin(place.pipeline())
    assert drive(place.runs, run, place.settings, hands) is State.TAKEN_BACK
    assert "it is slow" in place.runs.find(run).reason
    assert place.at("prod") == "v1"
    assert Stages(place.registry).of("chat", "v3") == "candidate"


def test_the_next_run_begins_with_what_is_live_and_retires_it(place):
    hands, pipeline = place.hands(), place.pipeline()
    for expected in ("v3", "v5"):
        run = place.begin(pipeline)
        assert drive(place.runs, run, place.settings, hands) is State.DONE
        assert place.at("prod") == place.runs.find(run).made("version") == expected
    assert Stages(place.registry).of("chat", "v3") == "retired"


def test_a_gateway_that_is_away_for_a_while_is_waited_for(place):
    hands, run = place.hands(), place.begin(place.pipeline())
    hands.away = 5
    assert drive(place.runs, run, place.settings, hands) is State.DONE


def test_a_release_that_never_begins_is_waited_for_so_long_and_its_reason_told(place):
    hands, run = place.hands(ends="nobody"), place.begin(place.pipeline())
    assert drive(place.runs, run, place.settings, hands) is State.FAILED
    assert "no release of chat@v3 begins: room for one more gang" in place.runs.find(run).reason
    assert hands.done["pause"] == 20


def test_an_alias_that_somebody_moved_meanwhile_stays_there(place):
    hands, run = place.hands(), place.begin(place.pipeline())
    told = hands._told

    def moved(version):
        told(version)
        Aliases(place.registry).move("chat", "prod", "v1", version, author="bob")

    hands._told = moved
    assert drive(place.runs, run, place.settings, hands) is State.STOPPED
    assert place.runs.find(run).reason == "chat@prod was moved to v1 meanwhile, and stays there"


def test_without_a_canary_the_alias_moves(place):
    run = place.begin(place.pipeline(canary=None, merge_request=None))
    assert drive(place.runs, run, place.settings, place.hands()) is State.DONE
    assert place.at("prod") == "v2"


def test_a_merge_request_that_needs_people_is_waited_for(tmp_path):
    place = Place(tmp_path, approvals=1, conditions=["eval.exact_match >= baseline"])
    run = place.begin(place.pipeline())
    assert drive(place.runs, run, place.settings, place.hands()) is State.WAITING
    assert "1 more approval" in place.runs.find(run).reason
    desk = starting.desk_of(place.settings)
    desk.review("chat", 1, principal="bob", approves=True)
    assert drive(place.runs, run, place.settings, place.hands()) is State.DONE
    assert len(desk.all("chat")) == 1


def test_one_that_people_merged_or_closed_goes_on_or_stops(tmp_path):
    place = Place(tmp_path, approvals=1)
    desk = starting.desk_of(place.settings)
    first = place.begin(place.pipeline())
    drive(place.runs, first, place.settings, place.hands())
    desk.close("chat", 1, principal="bob")
    assert drive(place.runs, first, place.settings, place.hands()) is State.STOPPED
    assert place.runs.find(first).reason == "merge request !1 was closed"


def test_a_run_for_a_merge_request_trains_nothing(place):
    place.registry.branch("chat", "tuned", "v1")
    place.registry.push("chat", model(place.folder / "other", 7.0), author="bob", branch="tuned")
    desk = starting.desk_of(place.settings)
    number = desk.open("chat", "tuned", "Better", author="bob")
    hands, run = place.hands({7.0: 0.9}), place.begin(place.pipeline(), number)
    assert drive(place.runs, run, place.settings, hands) is State.STOPPED
    commit = place.registry.history("chat").resolve("tuned")
    assert desk.show("chat", number)[0].metrics(commit) == {"eval.exact_match": 0.9, "eval.sums.exact_match": 0.9}
    again = place.begin(place.pipeline(evaluate={"sets": {"sums": "sums.jsonl"}}), number)
    assert drive(place.runs, again, place.settings, hands) is State.DONE
    assert hands.done["tune"] == 0
    assert desk.show("chat", number)[0].state == "merged"
    assert place.at("prod") == "v3"


def test_what_breaks_says_where_and_can_be_taken_up(place):
    hands, run = place.hands(), place.begin(place.pipeline())
    whole = hands.measure

    def broken(*_given):
        raise Unavailable("the evaluation", "its worker died")

    hands.measure = broken
    assert drive(place.runs, run, place.settings, hands) is State.FAILED
    assert place.runs.find(run).reason == "evaluate: the evaluation is unavailable: its worker died"
    hands.measure = whole
    assert drive(place.runs, run, place.settings, hands) is State.DONE
    assert hands.done["tune"] == 1


def test_a_run_that_is_cancelled_goes_no_further(place):
    hands, run = place.hands(), place.begin(place.pipeline())
    tune = hands.tune

    def cancelled(config):
        tune(config)
        place.runs.move(run, Event.CANCEL)

    hands.tune = cancelled
    assert drive(place.runs, run, place.settings, hands) is State.CANCELLED
    assert hands.done == {"tune": 1}


def test_one_driver_at_a_time(place):
    run = place.begin(place.pipeline())
    with alone(folder_of(place.settings, run), run), pytest.raises(Conflict, match="being driven"):
        drive(place.runs, run, place.settings, place.hands())
    assert drive(place.runs, run, place.settings, place.hands()) is State.DONE


class Died(BaseException):
    """What a kill leaves of a driver."""


def dying(monkeypatch, at):
    """Have a driver die before, or with an odd number after, the write that is the `at`th."""
    from actors.registry.registry import Registry
    from pipelines.lifecycle.runs import Runs

    count = [0]

    def frail(owner, name):
        act = getattr(owner, name)

        def done(*given, **more):
            mine = count[0]
            count[0] += 2
            if mine == at:
                raise Died
            found = act(*given, **more)
            if mine + 1 == at:
                raise Died
            return found

        monkeypatch.setattr(owner, name, done)

    for owner, names in (
        (Runs, ("enter", "keep", "leave", "move")), (Registry, ("branch", "push", "merge", "record", "checkout")),
        (Made, ("tune", "measure", "ask")),
    ):  # fmt: skip
        for name in names:
            frail(owner, name)


def test_a_driver_may_die_at_any_moment(tmp_path, monkeypatch):
    """At each write that a run makes, before it and after it: the next driver ends it, and does nothing twice."""
    at, ended = 0, None
    while ended is None:
        place = Place(tmp_path / str(at))
        hands, run = place.hands(), place.begin(place.pipeline())
        with monkeypatch.context() as patched, suppress(Died):
            dying(patched, at)
            ended = drive(place.runs, run, place.settings, hands)
        before = {step.name: step for step in place.runs.find(run).steps if step.state == "done"}
        if place.runs.find(run).state is not State.DONE:
            assert drive(place.runs, run, place.settings, hands) is State.DONE, at
        after = {step.name: step for step in place.runs.find(run).steps}
        assert {name: after[name] for name in before} == before, "what is done is not done again"
        assert (hands.done["rollout"], place.at("prod")) == (1, "v3"), at
        assert [each for each, _ in starting.desk_of(place.settings).all("chat")] == [1], at
        assert place.registry.fsck() == []
        at += 1
    assert at > 60
