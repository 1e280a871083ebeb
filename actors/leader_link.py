"""The leader's end of its connections with gateways: submits and cancels come in, a frame a step goes out to each.

A Serve handle's stream costs a Ray message an item, some 500 us; a frame over a socket costs some 20. Nobody is
answered who has not shown the cluster's link secret, which Ray's own authenticated channel gave to the gateways.
"""

import asyncio
import hmac
import socket
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import cast

import uvloop

from actors.engine.thread import EngineThread
from actors.messages import Cancel, Delta, Load, Submit
from actors.wire import MAX_FRAME_BYTES, Frames, hello_of, pack_frame, unpack_command
from cluster.errors import StrataError

_HELLO_BYTES = 256
_HELLO_SECONDS = 5.0
PULSE_SECONDS = 0.5
STALLED_PULSES = 5  # without a move of the engine's thread, until it counts as hung
_CLOSE_SECONDS = 5.0
_SLOW_READER_BYTES = 32 << 20  # a gateway that lets this much pile up is gone for all purposes


class LinkServer:
    """A leader's listening end, on a thread with its own event loop, so that Serve's never waits for it."""

    def __init__(self, host: str, name: str, secret: str, stalled: Callable[[], None] = lambda: None) -> None:
        """`stalled` is called at each pulse from the time on that the engine has not moved for `STALLED_PULSES`."""
        self._host, self._name, self._stalled = host, name, stalled
        self._moves: int | None = None
        self._still = 0  # pulses since the engine's thread last moved
        self._hello = hello_of(name, secret)
        self._load = Load()
        self._engine: EngineThread | None = None
        self._links: set[_LeaderEnd] = set()
        self._loop = uvloop.new_event_loop()
        self.port = 0

    def start(self, engine: EngineThread) -> None:
        """Listen on a free port, which `port` then names."""
        self._engine = engine
        self._serving = threading.Thread(target=self._run, name="link", daemon=True)
        self._serving.start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self.port = listening.result(10)

    def know(self, secret: str) -> None:
        """The directory was remade and has another secret; links that stand stay."""
        self._hello = hello_of(self._name, secret)

    def publish(self, deltas: Mapping[Hashable, list[Delta]], load: Load) -> None:
        """What one step did, to each gateway its own; the load to all. Called from the engine's thread."""
        if self.port:
            self._loop.call_soon_threadsafe(self._send, deltas, load)

    def close(self) -> None:
        """Send what is left, then hang up. Harmless when called twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(_CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._serving.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _listen(self) -> int:
        door = socket.create_server((self._host, 0))
        self._listener = await self._loop.create_server(lambda: _LeaderEnd(self), sock=door)
        self._loop.call_later(PULSE_SECONDS, self._pulse)
        port: int = door.getsockname()[1]
        return port

    def _pulse(self) -> None:
        """Say something even when there is nothing to say: a leader that is silent is gone.

        And one whose engine stands still falls silent, or it would be sent requests for ever.
        """
        if self._moving():
            self._send({}, self._load)
        else:
            self._stalled()
        self._loop.call_later(PULSE_SECONDS, self._pulse)

    def _moving(self) -> bool:
        """Counted in pulses and not in seconds: on a machine that is too busy, they come late, too."""
        moves = None if self._engine is None else self._engine.moves
        self._still = 0 if moves is None or moves != self._moves else self._still + 1
        self._moves = moves
        return self._still < STALLED_PULSES

    async def _hang_up(self) -> None:
        self._listener.close()
        links = list(self._links)
        for link in links:
            link.transport.close()
        await asyncio.gather(*(link.gone.wait() for link in links))

    def _send(self, deltas: Mapping[Hashable, list[Delta]], load: Load) -> None:
        self._load = load
        for link in list(self._links):
            if link.transport.get_write_buffer_size() > _SLOW_READER_BYTES:
                link.transport.abort()
                continue
            link.transport.write(pack_frame(deltas.get(link, []), load))

    def admit(self, link: "_LeaderEnd", hello: bytes) -> bool:
        """Whether it knows the secret and means this replica; then it hears the load at once."""
        if not hmac.compare_digest(hello, self._hello):
            return False
        self._links.add(link)
        link.transport.write(pack_frame([], self._load))
        return True

    def obey(self, link: "_LeaderEnd", command: Submit | Cancel) -> None:
        """Hand a gateway's wish to the engine."""
        if self._engine is not None:
            self._engine.post(link, command)

    def forget(self, link: "_LeaderEnd") -> None:
        """A gateway went away: so does all that it asked for."""
        self._links.discard(link)
        if self._engine is not None:
            self._engine.forget(link)


class _LeaderEnd(asyncio.Protocol):
    def __init__(self, server: LinkServer) -> None:
        self._server = server
        self._frames = Frames(limit=_HELLO_BYTES)  # until it has said who it is
        self._admitted = False
        self.gone = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        asyncio.get_running_loop().call_later(_HELLO_SECONDS, self._greet)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except (ValueError, TypeError, StrataError):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self.gone.set()
        self._server.forget(self)

    def _greet(self) -> None:
        """It had time to say who it is."""
        if not self._admitted:
            self.transport.abort()

    def _take(self, frame: bytes) -> None:
        if self._admitted:
            self._server.obey(self, unpack_command(frame))
        elif self._server.admit(self, frame):
            self._admitted = True
            self._frames.limit = MAX_FRAME_BYTES
        else:
            raise ValueError("a stranger")
