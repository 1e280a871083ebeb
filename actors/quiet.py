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
LOADING_SECONDS = 600.0  # the same for a rank that loads: in a sum it may wait for a slower one, and hold its own heart
BEGIN_SECONDS = 120.0  # for a process to start and find the channel: 2 s, on a machine with ten times its work 20
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


class Starting(Alive):
    """Raises ReplicaLost when one of a gang's ranks freezes or never begins while the gang starts.

    However long loading takes, a rank that loads beats or computes. One counts as frozen after `seconds` of neither,
    and as never begun after twice as long as that since another began: they are started at once.
    """

    def __init__(
        self, channel: Channel, seconds: float, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._channel, self._seconds, self._name, self._clock = channel, seconds, name, clock
        self._waiting = Wait(clock)
        self._pulses: dict[int, Pulse] = {}
        self._deadline = BEGIN_SECONDS

    def __call__(self) -> None:
        waited = self._waiting.seconds()
        pids = [self._channel.process(rank) for rank in range(self._channel.ranks)]
        if any(pids):
            self._deadline = min(self._deadline, waited + 2 * self._seconds)
        for rank, pid in enumerate(pids):
            silence = self._channel.silence(rank)
            if pid is None and waited > self._deadline:
                raise ReplicaLost(self._name, f"rank {rank} did not begin to load within {waited:.0f} s")
            if pid is not None and silence > self._seconds and not self._busy(rank, pid, silence):
                raise ReplicaLost(self._name, f"rank {rank} froze while it loaded: silent for {silence:.0f} s")

    def _busy(self, rank: int, pid: int, silence: float) -> bool:
        return silence < LOADING_SECONDS and self._pulses.setdefault(rank, Pulse(pid)).felt()


class Wait:
    """How long somebody has waited who looks every 0.1 to 0.5 s.

    More than a second between two looks is time in which it did not wait but was stopped itself, and perhaps all the
    machine with it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._looked, self._waited = clock, clock(), 0.0

    def seconds(self) -> float:
        """Seconds of waiting so far."""
        now = self._clock()
        self._waited += min(now - self._looked, _LONGEST_LOOK_SECONDS)
        self._looked = now
        return self._waited


class Patience(Alive):
    """`quiet`, and ReplicaLost when what is waited for has not come after `seconds` of waiting."""

    def __init__(self, quiet: Quiet, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet, self._seconds, self._waiting = quiet, seconds, Wait(clock)

    def __call__(self) -> None:
        self._quiet()
        waited = self._waiting.seconds()
        if waited > self._seconds:
            self._quiet.problem = f"its ranks live, but a step is not done after {waited:.0f} s"
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
