"""What is imported only when nobody asks."""

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from cluster.forking import server
from cluster.forking.server import Server


@pytest.fixture
def raylet() -> Iterator["subprocess.Popen[bytes]"]:
    made = subprocess.Popen(["sleep", "600"])
    yield made
    made.kill()
    made.wait()


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(server, "LATER_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(b"\0strata-fork-later-" + str(os.getpid()).encode())
        made.listen()
        yield made


def test_it_is_imported_once_and_the_door_stays_open(door: socket.socket, raylet: "subprocess.Popen[bytes]") -> None:
    calls = []

    def later() -> bool:
        calls.append(door.fileno() >= 0)
        raylet.kill()  # the end of it
        return True

    assert Server(door, os.pidfd_open(raylet.pid), later).serve() is None
    assert calls == [True]
    assert door.fileno() >= 0


def test_nobody_gets_a_fork_that_is_good_for_nothing(door: socket.socket, raylet: "subprocess.Popen[bytes]") -> None:
    assert Server(door, os.pidfd_open(raylet.pid), lambda: False).serve() is None
    assert door.fileno() < 0
    assert raylet.poll() is None


def test_who_asks_sooner_gets_what_there_is(door: socket.socket, raylet: "subprocess.Popen[bytes]") -> None:
    """A request is there before anybody has had time to be idle: it is not kept waiting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(door.getsockname())
        asking.sendall(b"\0\0\0\2[]")  # no request, so no fork
        asked = []

        def later() -> bool:
            try:
                asked.append(asking.recv(1))
            except ConnectionResetError:
                asked.append(b"")
            return False

        assert Server(door, os.pidfd_open(raylet.pid), later).serve() is None
        assert asked == [b""], "it was hung up on"
