"""Versions on the command line, from a folder to a folder."""

import json
import sys
from pathlib import Path

import pytest
import torch

from pipelines.cli import main
from tests.actors.registry.conftest import write_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRATA_CLUSTER__STATE_DIR", str(tmp_path / "state"))
    return tmp_path


def strata(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["strata", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_a_folder_goes_in_and_comes_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(home / "model", {"a": torch.ones(8)}, size=1)
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--meta", "license=mit", "-m", "First") == 0
    assert "chat@v1" in capsys.readouterr().out
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    assert "already" in capsys.readouterr().out
    write_model(home / "model", {"a": torch.zeros(8)}, size=2)
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat", "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == "v2"

    assert strata(monkeypatch, "models", "alias", "chat@v2", "prod") == 0
    capsys.readouterr()
    assert strata(monkeypatch, "models", "log", "chat@prod", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["names"] for row in rows] == [["v2", "main", "@prod"], ["v1"]]
    assert strata(monkeypatch, "models", "show", "chat@v1", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["metadata"], shown["message"], shown["tensors"]) == ({"license": "mit"}, "First", 1)
    assert strata(monkeypatch, "models", "diff", "chat@v1", "v2") == 0
    said = capsys.readouterr().out
    assert '+  "size": 2' in said
    assert "1 tensors changed" in said
    assert "█" in said
    assert "100 %" in said

    assert strata(monkeypatch, "models", "checkout", "chat@v1", "out") == 0
    assert json.loads((home / "out" / "config.json").read_text())["size"] == 1
    for words in (("show", "chat@v1"), ("log", "chat"), ("fsck",), ("gc",), ("branch", "chat@v1", "old"),
                  ("tag", "chat@v1", "first")):  # fmt: skip
        assert strata(monkeypatch, "models", *words) == 0, words


@pytest.mark.usefixtures("home")
def test_errors_name_the_thing_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    for words, said in (
        (("push", "empty", "--name", "chat"), "no config.json"),
        (("push", "nowhere", "--name", "chat"), "is no folder"),
        (("push", "empty", "--name", "Chat/../x"), "small letters"),
        (("push", "empty", "--name", "chat", "--meta", "x"), "key=value"),
        (("show", "chat"), "no model chat"),
        (("show", "chat@"), "after the @"),
        (("diff", "chat@v1", "other@v2"), "a version of chat"),
        (("alias", "chat@v1", "prod"), "no model chat"),
    ):
        assert strata(monkeypatch, "models", *words) == 1, words
        captured = capsys.readouterr()
        assert said in captured.err, (words, captured.err)
        assert "Traceback" not in captured.err


@pytest.mark.usefixtures("home")
def test_changed_content_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_model(tmp_path / "model", {"a": torch.ones(8)})
    assert strata(monkeypatch, "models", "push", "model", "--name", "chat") == 0
    for piece in (tmp_path / "state" / "registry" / "content").glob("??/*"):
        piece.write_bytes(b"x")
    assert strata(monkeypatch, "models", "fsck") == 1
    assert "was changed" in capsys.readouterr().out
