"""A gateway's end of its connection with one leader: the streams that it runs there.

Knows frames, silence and errors by name. Knows nothing of how a leader is chosen or found (`replicas`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Protocol, cast

from actors.messages import Cancel, Delta, Frame, Load, SamplingParams, Submit
from actors.wire import Frames, hello_of, pack_command, unpack_frame
from cluster.errors import ReplicaLost, StrataError, revived

SILENCE_SECONDS = 2.5  # of a leader that speaks every `leader_link.PULSE_SECONDS`; then it is gone for all purposes


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


class Follower(Protocol):
    """Who wants to know what becomes of a stream, as soon as it is heard of."""

    def first(self, cached: int) -> None:
        """A token came, with `cached` of the prompt's found there: with its first delta; called for each."""
        ...

    def ended(self) -> None:
        """It came to its end, whatever that was, or was cancelled."""
        ...

    def failed(self) -> None:
        """Its replica was lost."""
        ...


class LinkStream:
    """The deltas of one sequence, as they come; `follower` hears of them first."""

    lost = 0  # who takes it up elsewhere counts that

    def __init__(self, link: Link, number: int) -> None:
        self._link, self._number = link, number
        self._deltas: deque[Delta] = deque()
        self._error: StrataError | None = None
        self._ended = False
        self._news = asyncio.Event()
        self.follower: Follower | None = None

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
        if self.follower is not None and not self._ended:
            self.follower.ended()
        self._ended = True
        self._news.set()

    def pause(self) -> bool:
        """Whoever wants to go on keeps a journal."""
        self.cancel()
        return False

    def feed(self, delta: Delta) -> None:
        """From the link: one more."""
        if self.follower is not None:
            if delta.tokens:
                self.follower.first(delta.cached_tokens)
            if delta.finish is not None:
                self.follower.ended()
        if delta.error is not None:
            self._error = revived(*delta.error)
            if delta.tokens:  # what came before the fault
                self._deltas.append(replace(delta, finish=None, error=None))
        else:
            self._deltas.append(delta)
            self._ended = self._ended or delta.finish is not None
        self._news.set()

    def fail(self, error: StrataError) -> None:
        """From the link: it will not go on."""
        if self.follower is not None:
            self.follower.failed()
        self._error = error
        self._news.set()
