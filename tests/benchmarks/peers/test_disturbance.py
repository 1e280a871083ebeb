import os
import subprocess
import sys

import pytest

from benchmarks.peers.disturbance import Watch, disturbed, times

STAT = "cpu  100 20 30 4000 50 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"


def test_idle_and_waiting_are_not_busy() -> None:
    tick = os.sysconf("SC_CLK_TCK")
    assert times(STAT) == (pytest.approx(163 / tick), pytest.approx(80 / tick))


def test_what_a_told_process_and_its_children_take_is_ours() -> None:
    work = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(3_000_000))']); input()"
    process = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    watch = Watch([process.pid])
    before = watch._look()[2]
    assert process.stdin is not None
    process.communicate(b"")
    assert watch._look()[2] <= before + 1, "one that has ended is none of ours any more, and no error"
    assert set(watch.found()) == {"others", "steal"}


def test_a_little_is_no_disturbance() -> None:
    assert not disturbed(None)
    assert not disturbed({"others": 0.02, "steal": 0.5})
    assert disturbed({"others": 0.2, "steal": 0.0})
