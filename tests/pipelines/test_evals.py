import json
from pathlib import Path

import pytest

from cluster.errors import SettingsInvalid
from pipelines.evals import PER_TASK, cases_of, declared
from pipelines.routing import cases
from pipelines.settings import Settings, load

MODELS = [{"name": "chat@v6", "path": "a"}, {"name": "chat@v7", "path": "b"}]


def test_files_are_found_beside_the_settings_and_read(tmp_path: Path):
    (tmp_path / "sums.jsonl").write_text(json.dumps({"prompt": "1 + 1", "answer": "2"}))
    file = tmp_path / "strata.yaml"
    file.write_text(json.dumps({"models": MODELS, "routes": {"chat": {"evals": {"sums": "sums.jsonl"}}}}))
    found = declared(load(file, {}).settings)
    assert found["chat"]["sums"].cases[0].answers == ("2",)


def test_a_file_that_cannot_be_read_is_named_with_its_key(tmp_path: Path):
    made = Settings.of({"models": MODELS, "routes": {"chat": {"evals": {"sums": str(tmp_path / "no.jsonl")}}}})
    with pytest.raises(SettingsInvalid, match=r"routes\.chat\.evals\.sums: .*No such file"):
        declared(made)


def test_the_held_out_tasks_are_a_set():
    found = cases_of("held-out")
    assert PER_TASK * 5 < len(found) <= PER_TASK * 10
    assert cases.of(json.loads(found.text), "evals.x") == found
