import json
import random

import pytest

from cluster.errors import InvalidRequest
from pipelines.routing.evidence import Score
from pipelines.routing.experiment import ALPHA, Experiment, check, findings, needed, picture
from pipelines.routing.trials import Trials, shown


def trial(**more) -> Experiment:
    given = {"arms": {"a": 50.0, "b": 50.0}, "metric": "thumbs", "effect": 0.1, "rate": 0.6, "users": 5_000, **more}
    return Experiment("tone", "chat", **given)


def test_what_is_needed_is_enough_as_often_as_stated_and_hardly_more():
    each, settled = needed(0.6, 0.1), 0
    for seed in range(200):
        dice = random.Random(seed)
        a, b = (Score(each, sum(dice.random() < rate for _ in range(each))) for rate in (0.6, 0.7))
        (_, found) = findings(trial(scores={"a": a, "b": b}))
        settled += found.said.startswith("better")
    assert 0.74 <= settled / 200 <= 0.92
    assert needed(0.6, 0.2) < each / 3
    assert needed(0.5, 0.001) > 1_000_000


def test_versions_that_are_alike_are_told_apart_no_more_often_than_stated():
    wrong = 0
    for seed in range(150):
        dice, found = random.Random(seed), trial()
        ever = False
        for _ in range(40):
            for version in found.arms:
                found = found.heard(version, Score(20, sum(dice.random() < 0.6 for _ in range(20))))
            ever = ever or "by" in findings(found)[1].said.split()
        wrong += ever
    assert wrong / 150 <= ALPHA


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (Score(400, 100), Score(400, 300), "better by"), (Score(400, 300), Score(400, 100), "worse by"),
        (Score(40, 20), Score(40, 22), "not settled"), (Score(20_000, 9_900), Score(20_000, 9_950), "no different"),
        (Score(4, 2), Score(), "no outcomes yet"),
    ],
)  # fmt: skip
def test_what_is_said_of_an_arm(a, b, said):
    made = trial(scores={"a": a, "b": b})
    assert findings(made)[1].said.startswith(said)
    assert Experiment.of(json.loads(json.dumps(made.plain))) == made
    drawn = picture(json.loads(json.dumps(shown(made))))
    assert drawn.startswith("<svg")
    assert said in drawn


def test_one_that_cannot_be_settled_says_how_many_users_it_takes():
    assert check(trial()) == needed(0.6, 0.1)
    with pytest.raises(InvalidRequest, match=r"users: 1000, of whom a has 500, .* each arm needs \d+, so \d+ in all"):
        check(trial(users=1_000))
    with pytest.raises(InvalidRequest, match="of whom b has 50,"):
        check(trial(arms={"a": 99.0, "b": 1.0}))


def test_what_is_no_arm_and_what_comes_after_the_end_do_not_count():
    trials = Trials()
    asked = {"name": "tone", "model": "chat", "arms": {"a": 50, "b": 50}, "rate": 0.6, "effect": 0.1, "users": 1}
    trials.start(asked | {"force": True}, {"chat": ("a", "b")}, {"chat": {"a": 100.0}}, "ann", 1.0)
    assert not trials.heard("chat", "a", "kept", Score(1, 1))
    assert trials.heard("chat", "a", "thumbs", Score(1, 1))
    trials.heard("chat", "c", "thumbs", Score(1, 1))
    trials.end("tone", 2.0)
    assert not trials.heard("chat", "a", "thumbs", Score(1, 1))
    again = Trials(json.loads(json.dumps(trials.plain)))
    assert again.find("tone").scores == {"a": Score(1, 1)}
