"""HTTP/1.1 by hand, for requests that no client library sends: bytes out, answers in, and whether the door closed."""

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

PATIENCE = 20.0  # seconds until silence counts as a hang; nothing that passes waits so long


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.body)["error"]
        return found


class Door:
    """One connection to the gateway's port."""

    def __init__(self, port: int, *, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self._got = b""

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> "Door":
        """Everything, or as much as is taken: who is refused early need not be listened to."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
        return self

    def answer(self, *, bodiless: bool = False) -> Answer | None:
        """The next whole response; None where the connection was closed without one. Raises TimeoutError: a hang.

        `bodiless`: it answers HEAD, whose length is that of a body which does not come.
        """
        while b"\r\n\r\n" not in self._got:
            if not self._more():
                return None
        head, _, self._got = self._got.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if status == 100:
            return self.answer()
        length = 0 if bodiless else int(headers.get("content-length", 0))
        while len(self._got) < length and self._more():
            pass
        body, self._got = self._got[:length], self._got[length:]
        return Answer(status, headers, body)

    def closed(self) -> bool:
        """Whether the other side hangs up, saying nothing more. Raises TimeoutError where it stays."""
        return not self.rest()

    def rest(self) -> bytes:
        """All that comes until the other side hangs up. Raises TimeoutError where it stays."""
        while self._more():
            pass
        return self._got

    def _more(self) -> bool:
        try:
            piece = self.socket.recv(1 << 16)
        except ConnectionResetError:
            piece = b""
        self._got += piece
        return bool(piece)


def ask(port: int, data: bytes) -> Answer | None:
    """One request on a connection of its own."""
    with Door(port) as door:
        return door.send(data).answer()


def request(verb: str, target: str | bytes, headers: Iterable[str | bytes] = (), body: bytes | None = None) -> bytes:
    """A request as bytes; a body brings its own length."""
    path = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = [verb.encode() + b" " + path + b" HTTP/1.1"]
    lines += [line if isinstance(line, bytes) else line.encode("latin-1") for line in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(body: bytes) -> bytes:
    """A body as one chunk and the end."""
    return b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


def dribble(doors: list[Door], drops: list[bytes], pause: float, seconds: float) -> list[float]:
    """Send each door a drop of its own, again and again, until it is answered or closed: after how many seconds."""
    began, ended = time.monotonic(), [0.0] * len(doors)
    open_ = dict(enumerate(doors))
    while open_:
        assert time.monotonic() - began < seconds, f"{len(open_)} slow clients were never cut"
        ready, _, _ = select.select([door.socket for door in open_.values()], [], [], pause)
        for index, door in list(open_.items()):
            if door.socket in ready:
                ended[index] = time.monotonic() - began
                del open_[index]
            else:
                door.send(drops[index])
    return ended
