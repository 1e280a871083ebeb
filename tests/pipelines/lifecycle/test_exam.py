"""What a set may hold, what its metrics are called, and when a version is good enough."""

import json

import pytest

from cluster.errors import InvalidRequest
from pipelines.lifecycle import exam

ASKED = {"prompt": "1 + 1", "answer": ["2", "two"], "grade": "contains"}
CHOSEN = {"prompt": "Which is blue?", "choices": ["sea", "grass"], "answer": "sea"}


def written(tmp_path, *rows):
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_a_set_is_what_rollouts_ask_or_multiple_choice(tmp_path):
    (case,) = exam.read(written(tmp_path, ASKED), "evaluate.sets.a")
    assert case.right("It is Two.")
    (choice,) = exam.read(written(tmp_path, CHOSEN | {"answer": 1}), "evaluate.sets.a")
    assert (choice.choices, choice.right) == (("sea", "grass"), 1)


def test_the_questions_that_the_starter_was_held_out_from():
    assert len(exam.read("held-out", "evaluate.sets.a")) > 100
    assert exam.digest("held-out", "") == exam.digest("held-out", "")


@pytest.mark.parametrize(("rows", "said"), [
    ([], "0 questions"),
    ([ASKED, CHOSEN], "make two sets"),
    ([{"prompt": "x"}], "right answer"),
    ([CHOSEN | {"choices": ["sea"]}], "two texts or more"),
    ([CHOSEN | {"answer": "sky"}], "one of the choices, or a place from 0 to 1"),
    ([CHOSEN | {"answer": 2}], "from 0 to 1"),
    ([CHOSEN | {"answer": True}], "from 0 to 1"),
    ([CHOSEN | {"prompt": 1}], "no prompt"),
    ([7], "each line is"),
])  # fmt: skip
def test_what_is_no_set(tmp_path, rows, said):
    with pytest.raises(InvalidRequest) as refused:
        exam.read(written(tmp_path, *rows), "evaluate.sets.a")
    assert said in str(refused.value)


def test_metrics_are_of_each_set_and_of_all_that_are_alike(tmp_path):
    sets = {"a": exam.read(written(tmp_path, ASKED, ASKED), "a"), "b": exam.read(written(tmp_path, ASKED), "b"),
            "c": exam.read(written(tmp_path, CHOSEN), "c")}  # fmt: skip
    found = exam.score({"a": [True, False], "b": [True], "c": [False]}, sets)
    assert found == {
        "a.exact_match": 0.5, "b.exact_match": 1.0, "c.accuracy": 0.0, "exact_match": pytest.approx(2 / 3),
        "accuracy": 0.0,
    }  # fmt: skip
    assert sorted(found) == exam.metrics(sets)


def test_a_version_is_good_enough_or_it_is_said_what_is_not():
    wanted = exam.rules(["eval.a >= 0.5", "a >= baseline - 0.02"], ["a"])
    assert exam.verdict(wanted, {"a": 0.9}, {"a": 0.91}, "chat@prod") == ([], [])
    broken, _ = exam.verdict(wanted, {"a": 0.8}, {"a": 0.9}, "chat@prod")
    assert broken == ["a >= baseline - 0.02 does not hold: it is 0.8, chat@prod has 0.9"]
    broken, unasked = exam.verdict(wanted, {"a": 0.4}, None, "chat@prod")
    assert broken == ["a >= 0.5 does not hold: it is 0.4"]
    assert unasked == ["a >= baseline - 0.02 was not asked: there is no chat@prod to compare with"]


def test_a_rule_that_names_no_metric_is_refused_with_those_that_there_are():
    with pytest.raises(InvalidRequest, match=r"evaluate.require\[1\].*there is no metric b; there is a"):
        exam.rules(["a > 1", "b > 1"], ["a"])
