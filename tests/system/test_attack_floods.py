"""Who is slow, who does not read, who never ends and what is compressed, through the real HAProxy."""

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pytest

from pipelines.gateway.settings import GatewaySettings
from tests.system.attacked import CHAT, HELLO, JSON, Target, target
from tests.system.conftest import Stack, until
from tests.system.wire import Door, ask, chunked, dribble, request

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

TE = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def victim(stack: Stack) -> Iterator[Target]:
    yield from target(stack)


@pytest.fixture(autouse=True)
def unharmed(victim: Target) -> Iterator[None]:
    yield
    victim.unharmed()


def test_who_is_slow_is_cut_and_others_are_served(victim: Target) -> None:
    """Heads and bodies of a byte at a time, and streams that nobody reads: cut, while honest requests are answered."""
    heads, bodies, deaf = ([Door(victim.port, receive_bytes=4096) for _ in range(count)] for count in (24, 24, 2))
    for door in heads:
        door.send(b"GET /health HTTP/1.1\r\nX-Slow: ")
    for index, door in enumerate(bodies):
        framing = TE if index % 2 else "Content-Length: 100000"
        door.send(request("POST", CHAT, [*victim.headers, JSON, framing]))
    flood = {"max_tokens": 4000, "n": 4, "ignore_eos": True, "stream": True, "logprobs": True, "top_logprobs": 20}
    before = ended(victim)
    for door in deaf:
        door.send(request("POST", CHAT, [*victim.headers, JSON], json.dumps(HELLO | flood).encode()))
    stop, served = threading.Event(), []

    def honest() -> None:
        while not stop.is_set():
            served.extend(ask(victim.port, victim.honest(route)) for route in (CHAT, "/health"))

    others = threading.Thread(target=honest)
    others.start()
    try:
        dribble([*heads, *bodies], [b"a"] * len(heads) + [b"1\r\nx\r\n" if i % 2 else b"x" for i in range(24)], 0.1, 30)
        for door in heads:
            answer = door.answer()
            assert answer is None or answer.status == 408
            assert door.closed()
        for door in bodies:
            answer = door.answer()
            assert answer is not None
            assert answer.status == 408
            assert answer.error["code"] == "body_too_slow"
            assert door.closed()
        stop.set()
        others.join()
        # some 27 MB each, twice what all buffers hold; what is left in flight is the scrape itself
        until(lambda: victim.stack.gauge("strata_http_requests_in_flight") == 1, 60)
        for door in deaf:
            assert not door.rest().endswith(b"0\r\n\r\n"), "cut, not finished"
        # each choice counts once nobody can come back for the rest of it: as aborted or, where the engine was so far
        # ahead of the gateway that all of it had been made, as long enough
        asked = 4 * len(deaf) + len(served) // 2
        until(lambda: ended(victim) - before >= asked, 60, lambda: f"{ended(victim) - before} of {asked}")
    finally:
        stop.set()
        others.join()
        for door in (*heads, *bodies, *deaf):
            door.socket.close()
    assert served
    assert [answer for answer in served if answer is None or answer.status != 200] == []


def ended(victim: Target) -> float:
    """Choices that have come to an end, whichever."""
    rows = victim.stack.get("/metrics").text.splitlines()
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows if "finished_reason=" in row and "_total{" in row)


ZEROS = gzip.compress(b"\0" * (64 << 20), 9, mtime=0)
BOMBS = {
    "gzip": ZEROS, "x-gzip": ZEROS, "GZIP": ZEROS, "gzip, gzip": gzip.compress(ZEROS, mtime=0), "identity, gzip": ZEROS,
    "deflate": zlib.compress(b"\0" * (64 << 20), 9), "br": b"\x5b\xff\xff\xaf\x02\xc0", "zstd": b"\x28\xb5\x2f\xfd",
    "compress": b"\x1f\x9d", "unknown": b"{}",
}  # fmt: skip


@pytest.mark.parametrize("coding", BOMBS)
def test_a_compressed_body(victim: Target, coding: str) -> None:
    assert victim.post(CHAT, BOMBS[coding], f"Content-Encoding: {coding}").status == 415


@pytest.mark.parametrize("coding", ["gzip, chunked", "deflate, chunked", "gzip", "br, chunked"])
def test_a_compressed_transfer(victim: Target, coding: str) -> None:
    with Door(victim.port) as door:
        head = request("POST", CHAT, [*victim.headers, JSON, f"Transfer-Encoding: {coding}"])
        answer = door.send(head + chunked(ZEROS)).answer()
    assert answer is None or answer.status in (400, 413, 415, 422)


def test_a_body_without_end_costs_no_memory(victim: Target) -> None:
    """Eight at once, chunked for ever or far longer than a body may be: what eight bodies may hold, however often."""
    before = victim.gateway.memory_info().rss
    for _ in range(3):
        flooded(victim)
    assert victim.gateway.memory_info().rss - before < 8 * GatewaySettings().body_bytes


def flooded(victim: Target) -> None:
    """Eight bodies without end, each refused."""
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"

    def flood(door: Door, framing: str) -> None:
        door.send(request("POST", CHAT, [*victim.headers, JSON, framing]))
        try:
            while True:
                door.socket.sendall(piece)
        except OSError:
            pass

    doors = [Door(victim.port) for _ in range(8)]
    framings = [TE if i % 2 else "Content-Length: 999999999" for i in range(len(doors))]
    threads = [threading.Thread(target=flood, args=each) for each in zip(doors, framings, strict=True)]
    for thread in threads:
        thread.start()
    for door in doors:
        answer = door.answer()
        assert answer is None or answer.status == 413
        with suppress(OSError):
            door.socket.shutdown(socket.SHUT_RDWR)  # a sender that is blocked wakes up; HAProxy reads on for a while
        door.socket.close()
    for thread in threads:
        thread.join()
