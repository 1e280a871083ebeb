"""Compiling one at a time: what killed processes leave is cleared away, what living ones hold is waited for."""

import subprocess
import sys
from pathlib import Path

from torch.utils.file_baton import FileBaton

from actors.models import extension
from actors.models.extension import turn

# what torch's FileBaton does, without torch's import: make the file and hold it open
OURS = """
import os, runpy, sys
from pathlib import Path
turn = runpy.run_path(sys.argv[1])["turn"]  # alone: its package would import torch
with turn(Path.cwd()):
    os.open("lock", os.O_CREAT | os.O_EXCL)
    os.chdir("/")
    print("compiling", flush=True)
    sys.stdin.read()
"""
ORPHAN = "import sys; print(flush=True); sys.stdin.read()"  # as a ninja is left behind, which works in the folder
TRY = """
import fcntl
try:
    fcntl.flock(open("turn", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("held")
"""


def never() -> None:
    raise AssertionError("nobody compiles: there is nothing to wait for")


def start(script: str, folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", script, extension.__file__],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def test_a_killed_process_is_in_nobodys_way(tmp_path):
    other = start(OURS, tmp_path)
    held = start(TRY, tmp_path)
    kill(held)
    kill(other)
    assert (tmp_path / "lock").exists()
    with turn(tmp_path, never):
        assert not (tmp_path / "lock").exists(), "torch would wait for it for ever"


def test_torch_compiling_elsewhere_is_waited_for(tmp_path):
    baton = FileBaton(str(tmp_path / "lock"))
    assert baton.try_acquire()
    waited = []

    def pause() -> None:
        waited.append((tmp_path / "lock").exists())
        if len(waited) == 3:
            baton.release()

    with turn(tmp_path, pause):
        assert waited == [True, True, True]


def test_what_a_killed_process_started_is_waited_for(tmp_path):
    ninja = start(ORPHAN, tmp_path)
    (tmp_path / "lock").touch()
    waited = []

    def pause() -> None:
        waited.append((tmp_path / "lock").exists())
        if len(waited) == 3:
            kill(ninja)

    with turn(tmp_path, pause):
        assert waited == [True, True, True]
        assert not (tmp_path / "lock").exists()
