"""A silent rank is lost when it is stopped, gone or idle, and not while it computes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.channel import Channel
from actors.quiet import BEGIN_SECONDS, BUSY_SECONDS, LOADING_SECONDS, Pulse, Quiet, Starting, Vital, vital
from cluster.errors import ReplicaLost


class Patient:
    """A process as the kernel would show it, on a fake clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.shown: Vital | None = ("S", 100)
        self.pulse = Pulse(1, lambda pid: self.shown, lambda: self.now)

    def after(self, seconds: float, shown: Vital | None) -> bool:
        self.now += seconds
        self.shown = shown
        return self.pulse.felt()


@pytest.mark.parametrize("shown", [("T", 100), ("Z", 100), ("X", 1), None])
def test_stopped_or_gone_is_noticed_at_once(shown: Vital | None) -> None:
    assert not Patient().after(0.0, shown)


def test_a_runnable_one_is_busy_however_long() -> None:
    patient = Patient()
    assert all(patient.after(1.0, ("R", 100)) for _ in range(10))


def test_a_sleeper_that_uses_no_time_is_lost_at_the_second_look() -> None:
    patient = Patient()
    assert patient.after(0.0, ("S", 100))
    assert patient.after(1.5, ("S", 100))
    assert not patient.after(0.6, ("S", 100))


def test_one_that_computes_in_another_thread_is_not() -> None:
    patient = Patient()
    assert all(patient.after(2.5, ("S", 100 + tick)) for tick in range(20))


def test_the_kernel_shows_this_process() -> None:
    seen = vital(os.getpid())
    assert seen is not None
    assert seen[0] in "RS"
    assert vital(2**22 + 1) is None


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    made = Channel.create(tmp_path, 1)
    yield made
    made.close()


def test_silence_of_a_busy_process_is_forgiven_and_of_a_missing_one_is_not(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "silence", lambda rank: BUSY_SECONDS / 2)
    Quiet(channel, range(1), 2.0, "m", [os.getpid()])()
    with pytest.raises(ReplicaLost, match="silent for 15"):
        Quiet(channel, range(1), 2.0, "m", [2**22 + 1])()
    with pytest.raises(ReplicaLost):
        Quiet(channel, range(1), 2.0, "m")()
    monkeypatch.setattr(channel, "silence", lambda rank: BUSY_SECONDS + 1)
    with pytest.raises(ReplicaLost):
        Quiet(channel, range(1), 2.0, "m", [os.getpid()])()


def test_a_problem_told_from_outside_is_raised(channel: Channel) -> None:
    quiet = Quiet(channel, range(1), 2.0, "m")
    quiet()
    quiet.problem = "rank 0 ended"
    with pytest.raises(ReplicaLost, match="rank 0 ended"):
        quiet()


def test_loading_may_take_as_long_as_it_beats_or_computes(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Starting(channel, 20.0, "m")
    channel.introduce(0)
    starting()
    monkeypatch.setattr(channel, "silence", lambda rank: LOADING_SECONDS / 2)  # this process computes
    starting()
    monkeypatch.setattr(channel, "process", lambda rank: 2**22 + 1)
    with pytest.raises(ReplicaLost, match="rank 0 froze while it loaded: silent for 300 s"):
        Starting(channel, 20.0, "m")()
    monkeypatch.setattr(channel, "silence", lambda rank: 19.0)
    starting()


def test_a_rank_that_never_begins_is_lost_and_a_stopped_leader_has_not_waited(channel: Channel) -> None:
    now = [0.0]
    starting = Starting(channel, 20.0, "m", lambda: now[0])
    now[0] = 1e6
    starting()
    with pytest.raises(ReplicaLost, match="rank 0 did not begin"):
        for _ in range(int(BEGIN_SECONDS) + 2):
            now[0] += 1.0
            starting()


def test_a_rank_may_not_begin_long_after_another(tmp_path: Path) -> None:
    now = [0.0]
    channel = Channel.create(tmp_path, 2)
    starting = Starting(channel, 20.0, "m", lambda: now[0])
    for _ in range(30):
        now[0] += 1.0
        starting()
    channel.introduce(0)
    with pytest.raises(ReplicaLost, match=r"rank 1 did not begin to load within 7[12] s"):
        for _ in range(60):
            now[0] += 1.0
            channel.beat(0)
            starting()
    channel.close()
