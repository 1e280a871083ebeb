"""What a pipeline may say, and what is refused by looking at it."""

import json

import pytest
import yaml

from cluster.errors import SettingsInvalid
from pipelines.lifecycle.declared import cycle
from pipelines.settings import load

GOOD = {
    "name": "tune", "model": "chat", "train": {"data": "train.jsonl"}, "push": {},
    "evaluate": {"sets": {"sums": "sums.jsonl"}}, "merge_request": {}, "canary": {}, "live": {},
}  # fmt: skip


def settled(tmp_path, *pipelines):
    file = tmp_path / "strata.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps({"pipelines": pipelines}))))  # or YAML writes aliases
    return load(file, {}).settings.pipelines


def test_paths_are_those_beside_the_file_and_steps_come_in_order(tmp_path):
    for name in ("train.jsonl", "sums.jsonl"):
        (tmp_path / name).touch()
    (found,) = settled(tmp_path, dict(reversed(GOOD.items())))
    assert found.train.data == str(tmp_path / "train.jsonl")
    assert found.evaluate.sets == {"sums": str(tmp_path / "sums.jsonl")}
    assert found.steps == ("train", "evaluate", "push", "merge_request", "canary", "live")


def test_a_rate_may_be_written_as_json_and_python_write_it(tmp_path):
    file = tmp_path / "strata.yaml"
    for written, wanted in (("1e-6", 1e-6), ("2E-5", 2e-5)):
        train = f"{{data: x, learning_rate: {written}}}"
        file.write_text(f"pipelines: [{{name: t, model: chat, train: {train}, push: {{}}}}]")
        assert load(file, {}).settings.pipelines[0].train.learning_rate == wanted
    file.write_text(file.read_text().replace("2E-5", "'2E-5'"))
    with pytest.raises(SettingsInvalid, match=r'learning_rate .*"2E-5" is not accepted; it is a number'):
        load(file, {})


def test_held_out_questions_are_no_file(tmp_path):
    (found,) = settled(tmp_path, GOOD | {"evaluate": {"sets": {"tasks": "held-out"}}})
    assert found.evaluate.sets == {"tasks": "held-out"}


@pytest.mark.parametrize(("change", "said"), [
    ({"name": "Tune it"}, "small letters"),
    ({"trian": {}}, "trian"),
    ({"train": {}}, "data"),
    ({"train": {"data": "x", "lora": {"rank": 0}}}, "rank"),
    ({"train": {"data": "x", "steps": 0}}, "steps"),
    ({"train": {"data": "x", "zero_stage": 3}}, "zero_stage"),
    ({"train": {"data": "x", "checkpoint": "5"}}, "30s, 10m or 6h"),
    ({"train": None}, "push has nothing to push without train"),
    ({"train": None, "push": None}, "on: {merge_request: true}"),
    ({"push": None}, "declare push: {}"),
    ({"merge_request": None}, "declare merge_request: {}"),
    ({"evaluate": {"sets": {}}}, "sets"),
    ({"evaluate": {"sets": {"My set": "x"}}}, "My set"),
    ({"evaluate": {"sets": {"a": "x"}, "require": ["accuracy is good"]}}, "accuracy is good"),
    ({"evaluate": {"sets": {"a": "x"}, "require": ["accuracy > 0.5", "eval.b.accuracy > 0.5"]}},
     'evaluate.require.1 (strata.yaml:6): "eval.b.accuracy > 0.5" is not accepted; there is no metric b.accuracy; '
     "there is exact_match, accuracy, a.exact_match, a.accuracy"),
    ({"on": {"schedule": "61 * * * *"}}, "no minute"),
    ({"on": {"every": "1s"}}, "too often"),
    ({"on": {"every": "soon"}}, "30s, 10m or 6h"),
    ({"on": {"drift": {"rule": "happiness < 1"}}}, "there is no metric happiness"),
    ({"on": {"drift": {"rule": "p90_ttft > 2"}}}, "on.drift.rule"),
    ({"on": {"drift": {"rule": "mean_queue > 0.5"}}}, "mean_queue is a time: give its unit"),
    ({"on": {"drift": {"rule": "cut_rate > 5"}}}, "say 5% or 0.05"),
    ({"on": {"drift": {"rule": "p90_ttft > baseline + 1s"}}}, "compared with nothing"),
    ({"on": {"after": "tune"}}, "cannot wait for itself"),
    ({"canary": {"steps": [1, 100]}}, "steps"),
])  # fmt: skip
def test_what_is_refused(tmp_path, change, said):
    values = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(SettingsInvalid) as refused:
        settled(tmp_path, values)
    assert said in str(refused.value)
    assert "pipelines" in str(refused.value)


@pytest.mark.parametrize("rule", ["p90_ttft > 2s", "mean_itl > 50 ms", "abort_rate > 0.05", "p50_tokens < 20"])
def test_what_drift_may_be_and_over_what_it_is_unless_that_is_said(tmp_path, rule):
    (found,) = settled(tmp_path, GOOD | {"on": {"drift": {"rule": rule}}})
    assert (found.on.drift.rule, found.on.drift.over) == (rule, "10m")


@pytest.mark.parametrize(("change", "said"), [
    ({"on": {"every": "0s"}}, 'pipelines.0.on.every (strata.yaml:11): "0s" is not accepted'),
    ({"on": {"after": "tune"}}, 'pipelines.0.on.after (strata.yaml:11): "tune" is not accepted'),
    ({"on": {"after": "zzz"}}, 'on.after (strata.yaml:11): "zzz" is not accepted; no such pipeline is declared here; '
     "name one of tune"),
    ({"push": None}, "pipelines.0.push (strata.yaml:2): nothing is not accepted"),
    ({"merge_request": None}, "pipelines.0.merge_request (strata.yaml:2): nothing is not accepted"),
    ({"train": None, "push": None}, "pipelines.0.on.merge_request (strata.yaml:2): nothing is not accepted"),
])  # fmt: skip
def test_what_is_refused_names_its_key_and_line(tmp_path, change, said):
    values = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(SettingsInvalid) as refused:
        settled(tmp_path, values)
    assert said in str(refused.value)


def test_one_without_steps_or_named_twice_is_refused(tmp_path):
    with pytest.raises(SettingsInvalid, match="it has no step"):
        settled(tmp_path, {"name": "tune", "model": "chat"})
    with pytest.raises(SettingsInvalid, match="two pipelines are named 'tune'"):
        settled(tmp_path, GOOD, GOOD)


def test_pipelines_that_wait_for_one_another_are_refused(tmp_path):
    with pytest.raises(SettingsInvalid, match="a -> b -> a"):
        settled(tmp_path, GOOD | {"name": "a", "on": {"after": "b"}}, GOOD | {"name": "b", "on": {"after": "a"}})
    assert cycle({"a": "b", "b": "c", "c": None}) == []
    assert cycle({"a": "b", "b": "c", "c": "b"}) == ["b", "c", "b"]
    assert cycle({"a": "elsewhere"}) == []
