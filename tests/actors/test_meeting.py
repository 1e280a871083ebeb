"""A starting gang's folder: nobody else reads it, and it goes with its owner however that ends."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from actors import meeting
from actors.meeting import MARK, Meeting

OWNER = """
import sys
from actors.meeting import Meeting
made = Meeting.create()
made.rendezvous
(made.path / "channel").touch(0o600)
print(made.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(meeting, "SHARED_MEMORY", tmp_path)
    return tmp_path


def test_it_is_for_its_owner_alone_and_closes(memory: Path) -> None:
    made = Meeting.create()
    file = Path(made.rendezvous.removeprefix("file://"))
    assert file.parent == made.path
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    made.close()
    made.close()
    assert not list(memory.iterdir())


def test_what_a_group_s_name_is_marked_with_goes_too(memory: Path) -> None:
    made = Meeting.create()
    (made.path / f"{MARK}abc").touch()
    for name in ("deepspeed_allreduce_abc_0", "strata_sum_abc", "of_others_abd_0", "strata-cores-0"):
        (memory / name).touch()
    made.close()
    assert {file.name for file in memory.iterdir()} == {"of_others_abd_0", "strata-cores-0"}


def test_the_living_are_left_alone(memory: Path) -> None:
    first = Meeting.create()
    second = Meeting.create()
    meeting.sweep()
    assert first.path.is_dir()
    assert second.path.is_dir()
    second.close()
    assert first.path.is_dir()
    first.close()


def test_what_is_not_ours_stays(memory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").touch()
    (memory / f"strata-gang-{os.getuid()}-link").symlink_to(elsewhere)
    (memory / f"strata-gang-{os.getuid()}-file").touch()
    (memory / f"strata-gang-{os.getuid() + 1}-other").mkdir()
    meeting.sweep()
    assert (elsewhere / "kept").exists()
    assert len(list(memory.iterdir())) == 3


def test_a_killed_owner_s_folder_goes_with_the_next_start() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        meeting.SHARED_MEMORY = left.parent  # that process knows no other than the real one
        meeting.sweep()
        assert left.is_dir()
        os.kill(owner.pid, signal.SIGKILL)
    Meeting.create().close()
    assert not left.exists()
