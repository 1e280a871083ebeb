"""A folder to be in, and the command line as a person meets it."""

import sys
from pathlib import Path

import pytest

from pipelines.cli import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and state of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRATA_CLUSTER__STATE_DIR", str(tmp_path / "state"))
    return tmp_path


def strata(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run a command; its exit status."""
    monkeypatch.setattr(sys, "argv", ["strata", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)
