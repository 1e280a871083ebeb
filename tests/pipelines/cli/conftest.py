"""A folder to be in, and the command line as a person meets it."""

import sys
from pathlib import Path
from typing import Any

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


class Far:
    """A gateway that is a list of what it was asked; it has `told`, under `collection` as the only one."""

    def __init__(self, collection: str, told: dict[str, Any]) -> None:
        self._collection, self._told = collection, told
        self.asked: list[tuple[str, str, Any]] = []

    def __enter__(self) -> "Far":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append((method, path, body))
        return {"data": [self._told]} if (method, path) == ("GET", self._collection) else self._told
