import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from actors.vigil import ORPHANED_LOOKS, STOPPED_LOOKS, Vigil


def looks(states: str) -> tuple[list[bool], list[int]]:
    """What each look at a leader in these states says, `-` for none, and whom that ended."""
    ended: list[int] = []
    seen: Iterator[str] = iter(states)
    vigil = Vigil(7, lambda _: None if (state := next(seen)) == "-" else (state, 0), ended.append)
    return [vigil.look() for _ in states], ended


def test_a_leader_that_stays_stopped_is_ended() -> None:
    said, ended = looks("S" + "T" * STOPPED_LOOKS + "T")
    assert (any(said), ended) == (False, [7])


def test_one_that_goes_on_or_is_debugged_or_busy_is_not() -> None:
    almost = "T" * (STOPPED_LOOKS - 1)
    said, ended = looks(almost + "R" + almost + "t" * 9 + "D" * 9)
    assert (any(said), ended) == (False, [])


@pytest.mark.parametrize("gone", ["-", "Z"])
def test_a_rank_whose_leader_has_ended_ends_itself(gone: str) -> None:
    said, ended = looks("S" + gone * ORPHANED_LOOKS)
    assert (said[-1], ended) == (True, [os.getpid()])
    assert not any(said[:-1])


def test_it_ends_a_stopped_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"]) as leader:
        vigil = Vigil(leader.pid)
        while leader.poll() is None:
            vigil.look()
        assert leader.wait() == -9
