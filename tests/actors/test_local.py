"""Ranks as processes: what freezes while it loads is noticed, nothing is left behind, and no script needs a guard."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors import local, quiet
from actors.gang import Gang
from actors.local import Processes
from actors.meeting import Meeting
from actors.messages import Assignment
from actors.quiet import Starting
from actors.settings import Limits
from cluster.errors import ModelInvalid, ReplicaLost

PAIR = Assignment("m", "/nowhere", "auto", 0, 2, "cpu", 1, Limits(kv_cache_tokens=64), load_silence_seconds=0.5)
ROOT = Path(__file__).parents[2]


class Freezing(Starting):
    """Freezes rank 1 as soon as that has introduced itself."""

    frozen = 0

    def __call__(self) -> None:
        pid = self._channel.process(1)
        if pid and not self.frozen:
            self.frozen = pid
            os.kill(pid, signal.SIGSTOP)
        super().__call__()


@pytest.fixture
def meetings(monkeypatch: pytest.MonkeyPatch) -> list[Meeting]:
    """Every meeting that is made."""
    made: list[Meeting] = []
    create = Meeting.create

    def noted() -> Meeting:
        made.append(create())
        return made[-1]

    monkeypatch.setattr("actors.gang.Meeting.create", noted)
    return made


def test_a_rank_that_freezes_while_it_loads_ends_the_gang(
    monkeypatch: pytest.MonkeyPatch, meetings: list[Meeting]
) -> None:
    monkeypatch.setattr("actors.gang.Starting", Freezing)
    monkeypatch.setattr(local, "_CLOSE_SECONDS", 0.5)  # a frozen process hears no polite word
    launcher = Processes(PAIR)
    with pytest.raises(ReplicaLost, match="rank 1 froze while it loaded"):
        Gang(PAIR, launcher, ())
    assert launcher._processes == []
    assert not meetings[0].path.exists()


def test_a_rank_that_never_begins_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start = local._start

    def stillborn(pipe: int) -> "subprocess.Popen[bytes]":
        process = start(pipe)
        process.send_signal(signal.SIGSTOP)
        return process

    monkeypatch.setattr(local, "_start", stillborn)
    monkeypatch.setattr(local, "_CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(quiet, "BEGIN_SECONDS", 0.3)
    with pytest.raises(ReplicaLost, match="rank 0 did not begin to load"):
        Gang(PAIR, Processes(PAIR), ())


def test_what_a_rank_refuses_is_told_and_nothing_stays(meetings: list[Meeting]) -> None:
    with pytest.raises(ModelInvalid, match="/nowhere"):
        Gang(PAIR, Processes(PAIR), ())
    assert not meetings[0].path.exists()


SCRIPT = """
from actors.messages import Assignment
from actors.gang import Gang
from actors.local import Processes
from actors.settings import Limits
from cluster.errors import ModelInvalid
print("once")
one = Assignment("m", "/nowhere", "auto", 0, 1, "cpu", 1, Limits(kv_cache_tokens=64))
try:
    Gang(one, Processes(one), ())
except ModelInvalid as wrong:
    print(wrong)
"""


@pytest.mark.parametrize("way", ["script", "stdin"])
def test_a_script_needs_no_guard(tmp_path: Path, way: str) -> None:
    """A rank runs nothing of its caller's main module."""
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    command = [sys.executable, str(file) if way == "script" else "-"]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, input=SCRIPT, capture_output=True, text=True, env=surroundings, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    once, refused = done.stdout.splitlines()
    assert once == "once"
    assert "/nowhere" in refused
