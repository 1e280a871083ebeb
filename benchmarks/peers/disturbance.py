"""How much of the machine others had while something was measured: processes that are not ours, and other machines.

A lock between those who measure is a promise; this looks. Knows /proc/stat and the processes that it is told of.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

MUCH = 0.05  # of all cores: the spread between quiet runs is as large


class Watch:
    """Begin to look; `found` says what there was since, as shares of all cores."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [*pids, os.getpid()]
        self._begun, self._at = self._look(), time.monotonic()

    def found(self) -> dict[str, float]:
        """`others`: processes that are none of ours. `steal`: what the host gave to someone else."""
        busy, steal, ours = (now - then for now, then in zip(self._look(), self._begun, strict=True))
        whole = (time.monotonic() - self._at) * (os.cpu_count() or 1)
        return {"others": max(0.0, busy - ours) / whole, "steal": steal / whole}

    def _look(self) -> tuple[float, float, float]:
        busy, steal = times(Path("/proc/stat").read_text("ascii"))
        return busy, steal, sum(_seconds(pid) for pid in self._pids)


def times(stat: str) -> tuple[float, float]:
    """(busy, stolen) seconds of all cores since boot, from the text of /proc/stat."""
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.split("\n", 1)[0].split()[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def disturbed(found: dict[str, float] | None) -> bool:
    """Whether figures taken meanwhile say little of the engines."""
    return found is not None and (found["others"] > MUCH or found.get("unsteady", 0) > 0)


def _seconds(pid: int) -> float:
    """Of a process and its children, those that have ended too."""
    try:
        process = psutil.Process(pid)
        one = process.cpu_times()
        # this one's living children are told of by name; the probe's runs are among those that have ended
        children = 0.0 if pid == os.getpid() else sum(_seconds(child.pid) for child in process.children())
    except psutil.Error:
        return 0.0
    return one.user + one.system + one.children_user + one.children_system + children
