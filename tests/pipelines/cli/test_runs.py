"""How a run is shown."""

from dataclasses import replace

import pytest

from cluster.errors import ExtraMissing, NotFound
from pipelines.cli import runs
from pipelines.cli.runs import step_row
from pipelines.lifecycle import starting
from pipelines.lifecycle.drive import alone, drive
from pipelines.lifecycle.places import folder_of
from pipelines.lifecycle.run import Event, Run, State, Step
from tests.pipelines.cli.conftest import strata
from tests.pipelines.lifecycle.hands import Place


@pytest.mark.parametrize("said", ["failed", "cancelled"])
def test_a_step_that_was_cut_says_how_and_counts_no_further(said):
    step = Step("train", said, began=100.0, ended=109.5, attempts=1, note="step 1 of 3")
    assert step_row(step, 500.0) == ("train", said, "9.5", "1", "step 1 of 3")


def test_a_step_that_runs_says_how_far_it_is():
    assert step_row(Step("train", "running", began=100.0, share=0.5), 109.5)[:3] == ("train", "running 50%", "9.5")


def test_a_step_that_waits_for_people_is_not_said_to_run():
    step = Step("merge_request", "running", began=100.0, attempts=1)
    assert step_row(step, 150.0, State.WAITING) == ("merge_request", "waiting", "50.0", "1", "")


@pytest.mark.usefixtures("home")
def test_what_is_not_there_says_what_is(monkeypatch, capsys):
    for words, said in (
        (("show", "x-1"), "no run x-1; there is none yet"),
        (("start", "tune"), "no pipeline tune; there is none: declare one under `pipelines` in the settings"),
        (("unwatch", "tune"), "no watched pipeline tune; there is none yet"),
    ):
        assert strata(monkeypatch, "runs", *words) == 1
        assert said in capsys.readouterr().err


def test_figures_say_what_they_are():
    assert (runs.number("bytes", 11_223_200.0), runs.number("loss", 0.51234567)) == ("11.2 MB", "0.512346")
    assert (runs.plain(["a"] * 5), runs.plain([])) == ("5 kept as examples; --json has them", "none")


class Stored:
    """The runs of a registry, of which `find` tells one after the other."""

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)

    def find(self, _run: str) -> Run:
        return self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]


@pytest.mark.parametrize(
    "begun", [{"state": State.RUNNING}, {"steps": (Step("merge_request", "running", attempts=2),)}]
)
def test_what_is_stored_before_a_driver_begins_is_not_what_became_of_a_run_that_was_taken_up(monkeypatch, begun):
    monkeypatch.setattr(runs, "LOOK_SECONDS", 0.0)
    steps = (Step("merge_request", "running", attempts=1),)
    before = Run("tune-1", "tune", "chat", State.WAITING, "", "ann", None, {}, "needs", 1.0, None, "job", steps)
    stored = Stored(before, before, replace(before, **begun), before)
    runs.taken_up(stored, before)
    assert stored.runs == [before], "the third look has seen the driver"


def test_a_run_that_waits_says_what_for_by_now_and_what_goes_on_with_it(tmp_path):
    place = Place(tmp_path, approvals=1)
    run = place.begin(place.pipeline())
    assert drive(place.runs, run, place.settings, place.hands()) is State.WAITING
    found = place.runs.find(run)
    assert found.reason == runs.standing(place.settings, found)
    assert found.reason.startswith("merge request !1 needs 1 more approval of ")
    assert found.reason.endswith(f"`strata runs resume {run}` goes on, or a watch by itself")
    starting.desk_of(place.settings).review("chat", 1, principal="bob", approves=True)
    assert runs.standing(place.settings, found) == (
        f"merge request !1 waits for nobody any more: `strata runs resume {run}` goes on, or a watch by itself"
    )


def test_a_run_whose_driver_is_gone_says_so(tmp_path):
    place = Place(tmp_path)
    run = place.begin(place.pipeline())
    assert runs.standing(place.settings, place.runs.find(run)) == "", "it is queued"
    place.runs.move(run, Event.DRIVEN)
    found = place.runs.find(run)
    assert runs.standing(place.settings, found).startswith("its driver is gone: `strata runs resume")
    with alone(folder_of(place.settings, run), run):
        assert runs.standing(place.settings, found) == ""


def test_what_is_listed_says_what_holds_it_up(tmp_path):
    place = Place(tmp_path)
    run = place.begin(place.pipeline())
    place.runs.move(run, Event.DRIVEN)
    place.runs.enter(run, "train")
    place.runs.tell(run, "train", 0.3, "step 3 of 10")
    with alone(folder_of(place.settings, run), run):
        assert runs.row(runs.current(place.settings, place.runs.find(run)))[3] == "train step 3 of 10"
    assert runs.row(runs.current(place.settings, place.runs.find(run)))[3].startswith("its driver is gone")


def test_a_run_for_no_merge_request_is_not_begun(tmp_path):
    place = Place(tmp_path)
    pipeline = place.pipeline(on={"merge_request": True})
    with pytest.raises(NotFound, match="no merge request !99 of chat"):
        starting.begin(place.settings, pipeline, "by hand", "ann", {}, request=99)
    assert not place.runs.all()


def test_a_run_that_cannot_train_here_is_not_begun(tmp_path, monkeypatch):
    place = Place(tmp_path)
    monkeypatch.setattr(starting, "TRAINING", ("a_module_that_nobody_has",))
    with pytest.raises(ExtraMissing, match="train"):
        starting.begin(place.settings, place.pipeline(), "by hand", "ann", {})
    assert not place.runs.all()


def test_a_run_whose_driver_ended_before_it_began_says_so_and_nobody_waits_for_it(tmp_path, monkeypatch):
    place, asked = Place(tmp_path), []

    def fallen(_cluster, job):
        asked.append(job)
        return "models: [: this is no YAML" if len(asked) > 1 else ""

    monkeypatch.setattr(starting.jobs, "fallen", fallen)
    monkeypatch.setattr(runs, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(runs, "PATIENCE_SECONDS", 0.0)
    run = place.begin(place.pipeline())
    place.runs.submitted(run, "job-1")
    found = runs._followed(place.settings, run)
    assert found.reason == (
        "its driver ended before the first step (models: [: this is no YAML); "
        f"`strata runs resume {run}` goes on, or a watch by itself"
    )
    assert (asked, runs._lost(found)) == (["job-1", "job-1"], True)
