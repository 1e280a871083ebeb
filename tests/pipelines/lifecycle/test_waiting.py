"""What a run says while it waits for cores, and when it has them; each look is the test's."""

import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.errors import InvalidRequest
from pipelines.lifecycle import jobs, waiting
from pipelines.lifecycle.drive import drive
from pipelines.lifecycle.run import State
from tests.pipelines.lifecycle.hands import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def looks(monkeypatch):
    """What is called now and then, the one of the work at hand last."""
    found = []

    @contextmanager
    def ticking(tick, _seconds):
        found.append(tick)
        yield

    monkeypatch.setattr(waiting, "ticking", ticking)
    return found


def driven(place, looks, of, begins):
    """The notes of the step `of` until its work is done: at first, at a look, and at one after the work has begun."""
    hands, run = place.hands(), place.begin(place.pipeline())
    name, notes = "tune" if of == "train" else "measure", []
    act = getattr(hands, name)

    def noted(*given):
        notes.append(place.runs.find(run).step(of).note)
        looks[-1]()
        notes.append(place.runs.find(run).step(of).note)
        begins(given)
        looks[-1]()
        notes.append(place.runs.find(run).step(of).note)
        return act(*given)

    setattr(hands, name, noted)
    assert drive(place.runs, run, place.settings, hands) is State.DONE
    return notes


def test_training_waits_for_its_cores_and_then_loads(place, looks):
    def begins(given):
        (config,) = given
        waiting.marker(Path(config["out"])).touch()

    assert driven(place, looks, "train", begins) == ["waiting for 1 CPUs", "waiting for 1 CPUs", "loading the model"]


def test_measuring_waits_for_its_cores_and_then_answers(place, looks):
    def begins(given):
        Path(given[-1]).touch()

    told = driven(place, looks, "evaluate", begins)
    assert told[:3] == ["waiting for 1 CPU", "waiting for 1 CPU", "the candidate answers"]
    assert told[3:] == ["waiting for 1 CPU", "waiting for 1 CPU", "what is live answers"], "the marker is a new one"


def test_a_worker_says_at_once_that_it_has_begun(tmp_path, monkeypatch):
    seen = []
    tuning = SimpleNamespace(tune_worker=lambda _config: seen.append(waiting.marker(tmp_path).exists()))
    monkeypatch.setitem(sys.modules, "pipelines.lifecycle.tuning", tuning)
    jobs._tune({"out": str(tmp_path)})
    assert seen == [True]


def test_cores_are_counted():
    assert [waiting.amount(count, "GPU") for count in (1, 2)] == ["1 GPU", "2 GPUs"]


def test_who_waits_is_told_whose_places_will_be_free(place):
    hands = place.hands()
    at = SimpleNamespace(hands=hands)
    assert waiting.held(at) == "; 0 of 2 CPUs are free"
    spare = {"versions": ["v1"], "seconds": 480.0}
    hands.ask = lambda *_: {"data": [{"model": "chat", "spare": spare}, {"model": "other", "spare": None}]}
    said = "; 0 of 2 CPUs are free; a release keeps chat@v1 (no users) for 480 s more, or until `strata deploy`"
    assert waiting.held(at) == said
    hands.away = 1
    del hands.ask
    assert waiting.held(at) == "; 0 of 2 CPUs are free", "the gateway is away"


def test_who_goes_on_waiting_asks_now_and_then(place, monkeypatch):
    looks, told = [], []

    @contextmanager
    def ticking(tick, _seconds):
        looks.append(tick)
        yield

    monkeypatch.setattr(waiting, "ticking", ticking)
    monkeypatch.setattr(waiting, "held", lambda _at: "; somebody keeps it")
    at = SimpleNamespace(folder=place.folder, tell=lambda _share, note: told.append(note))
    with waiting.handed(at, "1 CPU", "training", 0.0):
        for _ in range(waiting.PATIENCE + waiting.LOOKS):
            looks[0]()
    assert told == ["waiting for 1 CPU", *["waiting for 1 CPU; somebody keeps it"] * 2]


def test_what_a_worker_finds_wrong_with_the_settings_is_said_as_it_is():
    wrong = InvalidRequest("train.lora.targets", "nosuch", "it has q_proj")
    wrapped = SimpleNamespace(_base_exc=wrong)
    assert jobs._own(SimpleNamespace(worker_failures={0: wrapped})) is wrong
    assert jobs._own(SimpleNamespace(worker_failures={0: wrong})) is wrong
    assert jobs._own(SimpleNamespace(worker_failures={0: ValueError("x")})) is None
    assert jobs._own(RuntimeError("x")) is None
