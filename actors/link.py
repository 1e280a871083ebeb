"""The long connection between a gateway and a leader: submits and cancels one way, a frame a step the other.

A Serve handle's stream costs a Ray message an item, some 500 us; a frame over a socket costs some 20. Both ends speak
only after the gateway has shown the cluster's link secret, which Ray's own authenticated channel gave it.
"""

import asyncio
import hmac
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Hashable, Mapping
from typing import Any, cast

import uvloop

from actors.engine.thread import EngineThread
from actors.messages import Cancel, Delta, Frame, Load, SamplingParams, Submit
from actors.wire import MAX_FRAME_BYTES, Frames, pack_command, pack_frame, unpack_command, unpack_frame
from cluster import errors
from cluster.errors import ReplicaLost, StrataError

_HELLO_BYTES = 256
_HELLO_SECONDS = 5.0
PULSE_SECONDS = 0.5
SILENCE_SECONDS = 2.5  # of a leader that speaks every PULSE_SECONDS; then it is gone for all purposes
_CLOSE_SECONDS = 5.0
_SLOW_READER_BYTES = 32 << 20  # a gateway that lets this much pile up is gone for all purposes


class LinkServer:
    """A leader's listening end, on a thread with its own event loop, so that Serve's never waits for it."""

    def __init__(self, host: str, name: str, secret: str) -> None:
        self._host, self._name = host, name
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
        """Say something even when there is nothing to say: a leader that is silent is gone."""
        self._send({}, self._load)
        self._loop.call_later(PULSE_SECONDS, self._pulse)

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


class Link(asyncio.Protocol):
    """A gateway's end: the streams it runs on one replica. All calls from the event loop that made it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.load = Load()
        self._frames = Frames()
        self._streams: dict[int, LinkStream] = {}
        self._next = 0
        self._lost: str | None = None
        self._heard = asyncio.Event()
        self._gone = asyncio.Event()
        self.transport: asyncio.Transport

    @classmethod
    async def connect(cls, name: str, host: str, port: int, secret: str) -> "Link":
        """A connection on which the hello is out. Raises OSError where nobody listens."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: cls(name), host, port)
        hello = hello_of(name, secret)
        link.transport.write(len(hello).to_bytes(4, "little") + hello)
        return link

    async def welcomed(self) -> bool:
        """Whether the leader has answered the hello: then it can be sent to."""
        return await self._hears()

    async def end(self) -> None:
        """Until the connection is over: closed by either side, or cut here because the leader fell silent."""
        while not self._gone.is_set():
            self._heard.clear()
            await self._hears()

    async def _hears(self) -> bool:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._heard.wait()
        except TimeoutError:
            self._lost = f"it has been silent for {SILENCE_SECONDS:g} s"
            self.transport.abort()
            await self._gone.wait()
        return not self._gone.is_set()

    @property
    def outstanding(self) -> int:
        """Streams under way, as this gateway knows them."""
        return len(self._streams)

    def submit(self, prompt: tuple[int, ...], params: SamplingParams, **more: Any) -> "LinkStream":
        """Send one sequence. Raises ReplicaLost when the connection is gone."""
        if self._lost is not None:
            raise ReplicaLost(self.name, self._lost)
        self._next += 1
        stream = LinkStream(self, self._next)
        self._streams[self._next] = stream
        self.transport.write(pack_command(Submit(self._next, prompt, params, **more)))
        return stream

    def cancel(self, number: int) -> None:
        """Tell the leader, once."""
        if self._streams.pop(number, None) is not None and self._lost is None:
            self.transport.write(pack_command(Cancel(number)))

    def close(self) -> None:
        """Hang up; the leader cancels what is left."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._heard.set()
        for wire in self._frames.feed(data):
            self._take(unpack_frame(wire))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost is None:
            self._lost = "the connection to it closed" if exc is None else f"the connection to it broke: {exc}"
        error = ReplicaLost(self.name, self._lost)
        for stream in self._streams.values():
            stream.fail(error)
        self._streams.clear()
        self._gone.set()
        self._heard.set()

    def _take(self, frame: Frame) -> None:
        self.load = frame.load
        for delta in frame.deltas:
            stream = self._streams.get(delta.id)
            if stream is None:
                continue  # cancelled here while it was under way
            if delta.finish is not None:
                del self._streams[delta.id]
            stream.feed(delta)


class LinkStream:
    """The deltas of one sequence, as they come."""

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number
        self._deltas: deque[Delta] = deque()
        self._error: StrataError | None = None
        self._ended = False
        self._news = asyncio.Event()

    async def accepted(self) -> None:
        """Until the engine has taken it. Raises what it was refused with."""
        await self._news.wait()
        if self._deltas:
            self._deltas.popleft()  # the acknowledgement: no tokens
        elif self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            while self._deltas:
                yield self._deltas.popleft()
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def drain(self) -> list[Delta]:
        waiting = list(self._deltas)
        self._deltas.clear()
        return waiting

    def cancel(self) -> None:
        self._link.cancel(self._number)
        self._ended = True
        self._news.set()

    def feed(self, delta: Delta) -> None:
        """From the link: one more."""
        if delta.error is not None:
            self._error = revived(*delta.error)
        else:
            self._deltas.append(delta)
            self._ended = self._ended or delta.finish is not None
        self._news.set()

    def fail(self, error: StrataError) -> None:
        """From the link: it will not go on."""
        self._error = error
        self._news.set()


def hello_of(name: str, secret: str) -> bytes:
    """What a gateway says first: the secret, and which replica it means, since ports are used again."""
    return f"{secret}\n{name}".encode()


def revived(name: str, arguments: tuple[Any, ...]) -> StrataError:
    """The error that a leader named; only our own family, whatever the wire says."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, StrataError):
        try:
            return kind(*arguments)
        except TypeError:
            pass
    return StrataError(f"{name}: {arguments}")
