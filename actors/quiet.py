"""When the other side of a channel counts as gone.

A rank whose beat is old may be frozen, dead or merely busy: DeepSpeed's all-reduce spins inside one call and lets no
other thread of its process run. So an old beat is only a reason to look at the process itself.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from actors.channel import Alive, Channel
from cluster.errors import ReplicaLost

BUSY_SECONDS = 30.0  # without a beat, however busy: a step that long is no step
_LOOK_SECONDS = 2.0  # CPU time is counted in ticks of 10 ms; even a crowded core gives one in this long
_LONGEST_LOOK_SECONDS = 1.0
_STOPPED = "TtZXx"
_RUNNABLE = "RD"

Vital = tuple[str, int]


class Quiet(Alive):
    """Raises ReplicaLost when a watched rank has ended, is stopped, or neither beats for `seconds` nor computes.

    `pids` are the watched ranks' processes on this machine, in their order; without them an old beat is enough.
    """

    def __init__(self, channel: Channel, watched: range, seconds: float, name: str, pids: Sequence[int] = ()) -> None:
        self._channel, self._watched, self._seconds, self._name = channel, watched, seconds, name
        self._pulses = {rank: Pulse(pid) for rank, pid in zip(watched, pids, strict=False)}
        self.problem: str | None = None

    def __call__(self) -> None:
        if self.problem is not None:
            raise ReplicaLost(self._name, self.problem)
        for rank in self._watched:
            silence = self._channel.silence(rank)
            if silence > self._seconds and not self._busy(rank, silence):
                raise ReplicaLost(self._name, f"rank {rank} has been silent for {silence:.1f} s")

    def _busy(self, rank: int, silence: float) -> bool:
        pulse = self._pulses.get(rank)
        return pulse is not None and silence < BUSY_SECONDS and pulse.felt()


class Patience(Alive):
    """`quiet`, and ReplicaLost when what is waited for has not come after `seconds` of waiting.

    Whoever waits looks every 0.1 s: more than a second between two looks is time in which it did not wait but was
    stopped itself, and perhaps all the machine with it.
    """

    def __init__(self, quiet: Quiet, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet, self._seconds, self._clock = quiet, seconds, clock
        self._looked, self._waited = clock(), 0.0

    def __call__(self) -> None:
        self._quiet()
        now = self._clock()
        self._waited += min(now - self._looked, _LONGEST_LOOK_SECONDS)
        self._looked = now
        if self._waited > self._seconds:
            self._quiet.problem = f"its ranks live, but a step is not done after {self._waited:.0f} s"
            self._quiet()


class Pulse:
    """Whether a process computes, by the kernel's account of it."""

    def __init__(
        self,
        pid: int,
        look: Callable[[int], Vital | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pid, self._look, self._clock = pid, look or vital, clock
        self._noted: tuple[float, int] | None = None

    def felt(self) -> bool:
        """True while it is runnable, or has used CPU time since the last look."""
        seen = self._look(self._pid)
        if seen is None or seen[0] in _STOPPED:
            return False
        if seen[0] in _RUNNABLE:
            return True
        now = self._clock()
        if self._noted is None or now - self._noted[0] > 10 * _LOOK_SECONDS:
            self._noted = (now, seen[1])
            return True
        if now - self._noted[0] < _LOOK_SECONDS:
            return True
        computed = seen[1] > self._noted[1]
        self._noted = (now, seen[1])
        return computed


def vital(pid: int) -> Vital | None:
    """The state letter and the CPU ticks of all threads of a process (proc(5), stat); None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[11]) + int(fields[12])
