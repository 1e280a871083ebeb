"""What a watch begins and takes up, with jobs that are a list."""

import json
from dataclasses import replace

import pytest
import yaml

from cluster.errors import InvalidRequest, NotFound, Unavailable
from pipelines.cli import watches
from pipelines.lifecycle import checks, places, starting
from pipelines.lifecycle.run import ACTIVE, Event, Run, State, Step
from pipelines.lifecycle.runs import Runs
from pipelines.lifecycle.steps.canary import released, rollout_of, share
from pipelines.lifecycle.watch import ATTEMPTS, QUIET_SECONDS, Watch, revived
from pipelines.settings import Settings
from tests.pipelines.lifecycle.hands import Place, model

RUN = Run("r-1", "r", "chat", State.RUNNING, "", "", None, {}, "", 0.0, None, "", (Step("train", ACTIVE, attempts=1),))


class Time:
    """It stands until somebody sets it."""

    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def jobs(monkeypatch):
    made = []
    monkeypatch.setattr(starting.jobs, "submit", lambda _cluster, run, *_: made.append(run) or f"job-{len(made)}")
    return made


@pytest.fixture
def watched(tmp_path):
    place = Place(tmp_path)
    place.around = {"file": str(tmp_path / "strata.yaml"), "variables": {}}
    places.watches_of(place.settings).add(place.pipeline().model_dump(mode="json"), place.around, "ann")
    return place


def test_new_data_begin_one_run_and_a_merge_request_another(watched, jobs):
    watch = Watch(watched.around, Time())
    assert watch.look() == [], "what is there at the beginning is nothing new"
    (watched.folder / "train.jsonl").write_text('{"prompt": "3 + 3", "answer": "6"}\n')
    assert watch.look() == jobs == ["tune-1"]
    assert watch.look() == [], "one run at a time"
    watched.runs.move("tune-1", Event.CANCEL)
    watched.registry.branch("chat", "tuned", "v1")
    watched.registry.push("chat", model(watched.folder / "other", 7.0), author="bob", branch="tuned")
    starting.desk_of(watched.settings).open("chat", "tuned", "Better", author="bob")
    assert Watch(watched.around, Time()).look() == ["tune-2"], "another watch goes on where the first one was"
    run = watched.runs.find("tune-2")
    assert (run.request, run.by) == (1, "watch, set by ann")
    assert [step.state for step in run.steps][:2] == ["left out", "pending"]


def test_only_merge_requests_of_runs_that_are_known_begin_none(watched, jobs):
    run = watched.begin(watched.pipeline())
    watched.runs.move(run, Event.CANCEL)
    for number, branch in enumerate(("run-tune-1", "run-tune-2", "run-faster")):
        watched.registry.branch("chat", branch, "v1")
        watched.registry.push("chat", model(watched.folder / branch, 7.0 + number), author="bob", branch=branch)
        starting.desk_of(watched.settings).open("chat", branch, "Better", author="bob")
    facts = Watch(watched.around, Time()).facts(watched.settings, watched.pipeline())
    assert list(facts.requests) == [2, 3]
    assert watched.runs.known("other", ["tune-1"]) == set(), "of another model a branch of that name is somebody's"


def test_what_keeps_it_from_watching_is_told_until_it_is_mended(watched, jobs):
    watch, file = Watch(watched.around, Time()), watched.folder / "train.jsonl"
    watch.look()
    said = file.read_text()
    file.unlink()
    watch.look()
    (found,) = places.watches_of(watched.settings).all()
    assert "train.data" in found.problem and "there is no such file" in found.problem
    file.write_text(said)
    watch.look()
    assert places.watches_of(watched.settings).all()[0].problem == ""
    assert jobs == []


def test_a_rule_that_has_become_stricter_stops_its_own_pipeline_alone(watched, jobs):
    table = places.watches_of(watched.settings)
    table.add({**watched.pipeline(name="old").model_dump(mode="json"), "train": None}, watched.around, "ann")
    watch = Watch(watched.around, Time())
    watch.look()
    old, tune = table.all()
    assert "push" in old.problem and tune.problem == ""
    assert [watches.row(each)[:2] for each in (old, tune)] == [("old", "nothing"), ("tune", "new data, merge requests")]
    watches.check(watched.settings, [watched.pipeline()], [old, tune])


def test_data_that_nobody_can_read_stop_their_own_pipeline_alone(watched, jobs):
    table, other = places.watches_of(watched.settings), watched.folder / "other.jsonl"
    other.write_text('{"prompt": "1", "answer": "1"}\n')
    before = watched.pipeline(name="before", train={"data": "other.jsonl", "steps": 3})
    table.add(before.model_dump(mode="json"), watched.around, "ann")
    watch = Watch(watched.around, Time())
    watch.look()
    other.write_bytes(b'{"prompt": "caf\xe9", "answer": "yes"}\n')
    (watched.folder / "train.jsonl").write_text('{"prompt": "3 + 3", "answer": "6"}\n')
    assert watch.look() == jobs == ["tune-1"]
    assert "train.data (other.jsonl:1)" in table.all()[0].problem


def test_what_nobody_foresaw_of_a_pipeline_is_told_and_the_next_are_looked_at(watched, jobs, monkeypatch, caplog):
    table = places.watches_of(watched.settings)
    table.add(watched.pipeline(name="before").model_dump(mode="json"), watched.around, "ann")
    watch, facts = Watch(watched.around, Time()), Watch.facts
    watch.look()
    (watched.folder / "train.jsonl").write_text('{"prompt": "3 + 3", "answer": "6"}\n')

    def breaks(self, settings, pipeline):
        if pipeline.name == "before":
            raise OSError("no space left")
        return facts(self, settings, pipeline)

    monkeypatch.setattr(Watch, "facts", breaks)
    assert watch.look() == jobs == ["tune-1"]
    assert [each.problem for each in table.all()] == ["OSError: no space left", ""]
    assert [(said.message, said.pipeline) for said in caplog.records if said.exc_info] == [
        ("pipeline_not_looked_at", "before")
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [NotFound("merge request", "7"), OSError("torn")])
def test_a_run_that_nobody_can_look_at_leaves_the_others_to_be_taken_up(watched, jobs, monkeypatch, caplog, wrong):
    for _ in range(2):
        run = watched.begin(watched.pipeline())
        watched.runs.move(run, Event.DRIVEN)
        watched.runs.move(run, Event.WAITS)

    def undecided(_settings, run):
        if run.id == "tune-2":
            raise wrong
        return 1, []

    monkeypatch.setattr("pipelines.lifecycle.starting.undecided", undecided)
    monkeypatch.setattr(Runs, "surroundings", lambda *_: watched.around)
    clock = Time()
    clock.now = watched.runs.find("tune-2").created + QUIET_SECONDS
    assert Watch(watched.around, clock).look() == jobs == ["tune-1"]
    (said,) = [each for each in caplog.records if each.message == "run_not_taken_up"]
    assert (said.run, said.pipeline) == ("tune-2", "tune")


def test_drift_of_what_the_gateway_counts_begins_one(watched, jobs):
    values = watched.pipeline(on={"drift": {"rule": "abort_rate > 10%", "answers": 10}})
    places.watches_of(watched.settings).add(values.model_dump(mode="json"), watched.around, "ann")
    counted = {"abort": 0, "stop": 100}
    said = 'vllm:request_success_total{{finished_reason="{0}",model_name="chat"}} {1}\n'
    watch = Watch(watched.around, Time(), lambda _: "".join(said.format(*each) for each in counted.items()))
    assert watch.look() == []
    counted |= {"abort": 5, "stop": 105}
    assert watch.look() == ["tune-1"]
    assert watched.runs.find("tune-1").why == "drift: abort_rate > 10%, it is 50 %"


def drifting(place, models):
    place.values["models"] = models
    place.values.pop("routes")
    declared = place.pipeline(on={"drift": {"rule": "abort_rate > 10%", "answers": 10}}, canary=None)
    places.watches_of(place.settings).add(declared.model_dump(mode="json"), place.around, "ann")
    return declared


def test_drift_is_of_the_name_that_the_live_version_is_served_by(watched, jobs):
    served = {"chat-next": "chat@next", "assistant": "chat@prod", "chat": "other@prod"}
    drifting(watched, [{"name": name, "registry": version} for name, version in served.items()])
    counted = {"abort": 0, "stop": 100}
    said = 'vllm:request_success_total{{finished_reason="{0}",model_name="assistant"}} {1}\n'
    watch = Watch(watched.around, Time(), lambda _: "".join(said.format(*each) for each in counted.items()))
    assert watch.look() == []
    counted |= {"abort": 5, "stop": 105}
    assert watch.look() == ["tune-1"]


@pytest.mark.parametrize(("models", "name"), [
    ({"a": "chat@next", "b": "chat@prod"}, "b"), ({"a": "other@prod", "b": "chat@next"}, "b"), ({"b": "chat"}, "b"),
])  # fmt: skip
def test_the_live_version_is_served_by_its_alias_or_else_as_its_model(watched, models, name):
    served = [{"name": each, "registry": version} for each, version in models.items()]
    assert checks.served(Settings.of({"models": served}), watched.pipeline()) == name


def test_drift_of_what_nobody_serves_is_refused_and_told(watched, jobs):
    declared = drifting(watched, [{"name": "chat", "path": "models/starter"}])
    assert Watch(watched.around, Time(), lambda _: "").look() == []
    said = "on.drift: of chat, which is not served from the registry"
    assert said in places.watches_of(watched.settings).all()[0].problem
    with pytest.raises(InvalidRequest, match=f"{said}.*registry: chat@prod"):
        watches.check(Settings.of(watched.values), [declared], [])


@pytest.mark.parametrize(("run", "driven", "decided", "now", "event"), [
    (RUN, True, False, 999.0, None),
    (RUN, False, False, QUIET_SECONDS - 1, None),
    (RUN, False, False, QUIET_SECONDS, Event.DRIVEN),
    (replace(RUN, steps=(Step("train", ACTIVE, attempts=ATTEMPTS),)), False, False, QUIET_SECONDS, Event.BROKE),
    (replace(RUN, state=State.WAITING), False, False, 999.0, None),
    (replace(RUN, state=State.WAITING), False, True, 999.0, Event.DRIVEN),
    (replace(RUN, steps=()), False, False, 999.0, Event.DRIVEN),
])  # fmt: skip
def test_which_run_is_taken_up(run, driven, decided, now, event):
    assert revived(run, driven, decided, 0.0, now) is event


def test_a_run_whose_job_never_came_is_taken_up(watched, jobs, monkeypatch):
    def refuses(*_given):
        raise Unavailable("Ray's jobs", "no")

    with monkeypatch.context() as patched:
        patched.setattr(starting.jobs, "submit", refuses)
        with pytest.raises(Unavailable):
            starting.begin(watched.settings, watched.pipeline(), "by hand", "ann", watched.around)
    clock = Time()
    clock.now = watched.runs.find("tune-1").created + QUIET_SECONDS
    assert Watch(watched.around, clock).look() == jobs == ["tune-1"]


@pytest.mark.parametrize(("change", "said"), [
    ({"live": {"alias": "stable"}}, "releases of chat move prod"),
    ({"merge_request": {"into": "other"}}, "what is merged into main is released"),
    ({"merge_request": {"into": "other"}, "canary": None, "live": None}, "no branch chat@other; there is main"),
    ({"model": "other"}, "other"),
    ({"train": {"data": "nowhere.jsonl"}}, "there is no such file or folder"),
    ({"train": {"data": "empty.jsonl"}}, "no line is in it"),
    ({"train": {"data": "train.jsonl", "start": "v9"}}, "v9"),
    ({"evaluate": {"sets": {"sums": "sums.jsonl"}, "require": ["accuracy > 1"]}}, "there is no metric accuracy"),
])  # fmt: skip
def test_what_is_refused_before_a_run_begins(watched, jobs, change, said):
    from cluster.errors import StrataError

    (watched.folder / "empty.jsonl").touch()
    with pytest.raises(StrataError) as refused:
        starting.begin(watched.settings, watched.pipeline(**change), "by hand", "ann", watched.around)
    assert said in str(refused.value)
    assert jobs == watched.runs.all() == []


def test_a_canary_wants_a_model_that_is_released(watched):
    plain = Settings.of({name: value for name, value in watched.values.items() if name != "routes"})
    with pytest.raises(InvalidRequest, match="which is not released by itself"):
        checks.check(watched.pipeline(), plain, watched.registry)
    assert released(watched.settings, "chat")[:2] == ("chat", "prod")


def test_the_rollout_of_a_version_is_the_first_that_has_it():
    rollouts = [
        {"name": name, "terms": {"model": of, "new": new, "steps": [50, 100]}, "step": step}
        for name, of, new, step in (
            ("c-v9", "chat", "v9", 0), ("c-v8", "chat", "v8", 1), ("o-v8", "other", "v8", 2), ("c-v7", "chat", "v7", 2)
        )
    ]  # fmt: skip
    found = rollout_of(rollouts, "chat", lambda version: version in ("v8", "v9"))
    assert found is not None
    assert (found["name"], share(found)) == ("c-v8", 0.5)
    assert rollout_of(rollouts, "chat", lambda version: version == "v6") is None


def test_what_a_row_keeps_is_the_pipeline_again(watched):
    (found,) = places.watches_of(watched.settings).all()
    declared = watched.pipeline()
    assert type(declared).model_validate(json.loads(json.dumps(found.declared))) == declared
    assert yaml.safe_load((watched.folder / "strata.yaml").read_text())["pipelines"][0]["name"] == "tune"
