"""Which draft models are refused, and in which words."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from actors.engine import LLM
from actors.engine.draft_folder import check_tokens, load_draft
from actors.messages import Assignment
from actors.settings import Limits, ModelSettings
from cluster.errors import ModelInvalid

STARTER = Path("models/starter")


def other(folder: Path, change: str) -> Path:
    """The starter's tokenizer with another token, or with one fewer."""
    told = json.loads((STARTER / "tokenizer.json").read_text())
    vocabulary, merges = told["model"]["vocab"], told["model"]["merges"]
    last = merges.pop()
    token = "".join(last) if isinstance(last, list) else last.replace(" ", "")
    place = vocabulary.pop(token)
    if change == "another":
        vocabulary["qqqq"] = place
    (folder / "tokenizer.json").write_text(json.dumps(told))
    return folder


def assignment(speculation: str, draft_model: str | None, rank: int = 0) -> Assignment:
    return Assignment(
        "m", str(STARTER), "auto", rank, 1, "cpu", 1, Limits(), speculation=speculation, draft_model=draft_model
    )


def test_the_same_tokens_are_taken(tmp_path: Path) -> None:
    shutil.copy(STARTER / "tokenizer.json", tmp_path)
    check_tokens(STARTER, tmp_path)


@pytest.mark.parametrize("change", ["another", "fewer"])
def test_other_tokens_are_refused_by_both_names(tmp_path: Path, change: str) -> None:
    with pytest.raises(ModelInvalid) as told:
        check_tokens(STARTER, other(tmp_path, change))
    assert str(tmp_path) in str(told.value)
    assert str(STARTER) in str(told.value)


def test_an_engine_refuses_other_tokens(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="same family"):
        LLM(STARTER, speculation="draft", draft_model=other(tmp_path, "another"))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="missing"):
        check_tokens(STARTER, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelInvalid, match="no tokenizer"):
        check_tokens(STARTER, tmp_path)


@pytest.mark.parametrize(("speculation", "draft_model"), [("draft", None), ("ngram", "models/starter")])
def test_half_of_a_setting_is_refused(speculation: str, draft_model: str | None) -> None:
    with pytest.raises(ModelInvalid, match="go together"):
        load_draft(assignment(speculation, draft_model))
    with pytest.raises(ValidationError, match="go together"):
        ModelSettings(name="m", path="p", speculation=speculation, draft_model=draft_model)  # type: ignore[arg-type]


def test_only_the_rank_that_guesses_loads_a_draft() -> None:
    assert load_draft(assignment("ngram", None)) is None
    assert load_draft(assignment("draft", str(STARTER), rank=1)) is None
    assert load_draft(assignment("draft", str(STARTER))) is not None
