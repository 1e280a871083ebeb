from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.environments import NotInstallable


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment called `one`, whose pip is ours to write."""
    monkeypatch.setattr(environments, "LISTS", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "made")
    (tmp_path / "one.txt").write_text("numpy==1\n")
    commands = tmp_path / "made" / "one" / "bin"
    commands.mkdir(parents=True)
    (commands / "python").touch()
    return commands


def pip(commands: Path, script: str) -> None:
    (commands / "pip").write_text(f"#!/bin/sh\n{script}\n")
    (commands / "pip").chmod(0o755)


def test_an_environment_is_made_once_and_again_when_its_list_changes(place: Path, tmp_path: Path) -> None:
    pip(place, f'echo "$@" >> {tmp_path}/calls')
    assert environments.python("one") is None, "half of one is none"
    assert environments.install("one") == environments.install("one") == environments.python("one")
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    (tmp_path / "one.txt").write_text("numpy==2\n")
    assert environments.python("one") is None
    environments.install("one")
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_what_cannot_be_installed_says_why(place: Path) -> None:
    pip(place, "echo 'ERROR: No matching distribution found for numpy==1' >&2; exit 1")
    with pytest.raises(NotInstallable, match="No matching distribution"):
        environments.install("one")
    assert environments.python("one") is None
