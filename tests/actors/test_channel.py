"""Plans to every rank and results back, in order and whole, over real shared memory."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.channel import Alive, Channel


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    made = Channel.create(tmp_path, 2)
    yield made
    made.close()


def listen(channel: Channel, rank: int, count: int, heard: list[bytes]) -> threading.Thread:
    attached = Channel.attach(str(channel.path), 2)

    def run() -> None:
        for _ in range(count):
            heard.append(attached.receive_plan(rank, Alive()))
            if rank == 0:
                attached.send_result(heard[-1][::-1], Alive())
        attached.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_every_rank_hears_every_plan_in_order(channel: Channel, size: int) -> None:
    plans = [bytes([index]) * (size + index) for index in range(1, 5)]
    heard: tuple[list[bytes], list[bytes]] = ([], [])
    threads = [listen(channel, rank, len(plans), heard[rank]) for rank in range(2)]
    for plan in plans:
        channel.send_plan(plan, Alive())
        assert channel.receive_result(Alive()) == plan[::-1]
    for thread in threads:
        thread.join(30)
    assert list(heard[0]) == list(heard[1]) == plans


def test_a_waiting_side_looks_whether_the_other_lives(channel: Channel) -> None:
    class Gone(Alive):
        def __call__(self) -> None:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        channel.receive_result(Gone())
    with pytest.raises(ConnectionError):
        channel.send_plan(b"one", Alive())
        channel.send_plan(b"two", Gone())  # nobody read the first


def test_beats_age(channel: Channel) -> None:
    assert channel.silence(0) == 0.0
    channel.beat(0)
    assert 0.0 <= channel.silence(0) < 60.0
    assert channel.process(1) is None
    channel.introduce(1)
    assert channel.process(1) == os.getpid()
    assert channel.silence(1) < 60.0


def test_too_many_ranks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64"):
        Channel.create(tmp_path, 65)
