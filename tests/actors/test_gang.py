"""The leader's side of a gang, without processes: what it does when a rank lives and yet does not answer."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from actors.channel import Alive, Channel
from actors.engine.plan import Plan, Result
from actors.gang import STEP_SECONDS, TOKEN_SECONDS, Gang, seconds_for
from actors.messages import Assignment, ShardFacts
from actors.quiet import Quiet
from actors.settings import Limits
from cluster.errors import ReplicaLost

ASSIGNMENT = Assignment("m", "/m", "auto", 0, 2, "cpu", 1, Limits(kv_cache_tokens=64))


def plan(number: int, tokens: int = 1, steps: int = 1) -> Plan:
    one = np.zeros(1, np.int32)
    return Plan(number, (), (), (), one, one, np.array([tokens], np.int32), one[:0], one, steps)


class Threads:
    """Ranks in this process, whose hearts beat in `actors.quiet`'s eyes since this process computes."""

    def __init__(self, plans: int) -> None:
        self._plans = plans  # that are answered
        self._threads: list[threading.Thread] = []

    def load(self, channel: str, rendezvous: str, starting: Alive) -> Sequence[ShardFacts]:
        self._channels = [Channel.attach(channel, 2) for _ in range(2)]
        for rank, attached in enumerate(self._channels):
            attached.introduce(rank)
        starting()
        return [ShardFacts(rank, 0, 10, 100, 8, 2**30, (), 0.0, 0) for rank in range(2)]

    def serve(self, blocks: int, context_tokens: int, end_tokens: tuple[int, ...], quiet: Quiet) -> None:
        for rank, attached in enumerate(self._channels):
            self._threads.append(threading.Thread(target=self._answer, args=(attached, rank)))
            self._threads[-1].start()

    def close(self) -> None:
        for thread in self._threads:
            thread.join()

    def _answer(self, channel: Channel, rank: int) -> None:
        for _ in range(self._plans):
            got = Plan.unpack(channel.receive_plan(rank, Alive()))
            if rank == 0:
                channel.send_result(Result(got.number, [7]).pack(), Alive())


class Clock:
    """Goes on by `by` seconds with every look."""

    def __init__(self) -> None:
        self.now, self.by = 0.0, 1.0

    def __call__(self) -> float:
        self.now += self.by
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    monkeypatch.setattr("actors.gang.SILENCE_SECONDS", 1e9)  # these ranks beat once
    yield Clock()


def test_a_rank_that_hangs_with_its_heart_beating_is_lost(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(ASSIGNMENT, Threads(1), (), clock)
    assert gang.execute(plan(1)).tokens == [7]
    monkeypatch.setattr("actors.channel._sleep", lambda address, seen: None)
    before = clock.now
    with pytest.raises(ReplicaLost, match="not done after 63 s"):
        gang.execute(plan(2, tokens=2))
    assert clock.now - before == pytest.approx(seconds_for(plan(2, tokens=2)), abs=3)
    with pytest.raises(ReplicaLost, match="not done"):  # and stays lost
        gang.check()
    gang.close()


def test_a_rank_that_takes_no_plan_is_lost_too(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(ASSIGNMENT, Threads(0), (), clock)
    monkeypatch.setattr("actors.channel._sleep", lambda address, seen: None)
    monkeypatch.setattr("actors.channel.time.sleep", lambda seconds: None)
    with pytest.raises(ReplicaLost):
        gang.execute(plan(1))
    gang.quiet.problem = None
    with pytest.raises(ReplicaLost, match="not done"):
        gang.execute(plan(2))
    gang.close()


def test_a_leader_that_was_stopped_itself_has_not_waited(clock: Clock) -> None:
    gang = Gang(ASSIGNMENT, Threads(40), (), clock)
    clock.by = 1e6
    for number in range(1, 41):
        assert gang.execute(plan(number)).number == number
    gang.close()


def test_longer_plans_have_longer_and_runs_do_not() -> None:
    assert seconds_for(plan(1)) == STEP_SECONDS + TOKEN_SECONDS
    assert seconds_for(plan(1, tokens=512)) == STEP_SECONDS + 512 * TOKEN_SECONDS
    assert seconds_for(plan(1, steps=128)) == seconds_for(plan(1))
