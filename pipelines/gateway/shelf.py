"""Streams that may be taken up again: a client whose connection was cut sends its request once more, with
`Last-Event-ID`, and goes on with the event after that.

Keeps the end of what each stream has sent, for a bounded time, of a bounded number of them, each for the principal that
it belongs to. Whoever goes away leaves a turn that holds nothing of the engine's. What is not kept may be made again,
by `regain`. Knows events as bytes.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from cluster.errors import InvalidRequest
from pipelines.chat import Answer, Part
from pipelines.gateway.body import ClientGone
from pipelines.gateway.regain import HEADER, Mark, Reader
from pipelines.gateway.shapes import Shape

TAIL_BYTES = 256 * 1024  # of events sent: what buffers between here and a client may hold at the most, and then some


class Kept:
    """One stream, of `owner`: a principal and a request. `mark`: where its reader is, `sent`: after how many events."""

    def __init__(
        self, name: str, owner: tuple[str, bytes], begun: Answer, shape: Shape, mark: Mark | None = None, sent: int = 0
    ) -> None:
        self.name, self.owner, self.begun, self.shape = name, owner, begun, shape
        self.reader = Reader(mark) if mark is not None else None
        self._tail: deque[bytes] = deque()
        self._bytes = 0
        self._sent = sent
        self._prefix = f"id: {name}-".encode()
        self.holder: asyncio.Task[Any] | None = None  # who sends it now
        self.wanted = False  # by a client that has come again, while its old connection is not known to be dead
        self.whole = False  # all of it has been sent

    def number(self, events: bytes, mark: bytes = b"") -> bytes:
        """The events with their ids, remembered. `mark`: where their reader is after the last of them."""
        *inner, last = events.split(b"\n\n")[:-1]
        told = b"".join([self._line(event, b"") for event in inner]) + self._line(last, mark and b"~" + mark)
        while self._bytes > TAIL_BYTES and len(self._tail) > 1:
            self._bytes -= len(self._tail.popleft())
        return told

    def _line(self, event: bytes, mark: bytes) -> bytes:
        self._sent += 1
        line = b"%b%d%b\n%b\n\n" % (self._prefix, self._sent, mark, event)
        self._tail.append(line)
        self._bytes += len(line)
        return line

    def after(self, number: int) -> bytes:
        """All that was sent after an event. Raises InvalidRequest where that is forgotten, or never was."""
        first = self._sent - len(self._tail)
        if not first <= number <= self._sent:
            raise InvalidRequest(
                HEADER, f"{self.name}-{number}", f"events {first} to {self._sent} are known; ask again from the start"
            )
        return b"".join(list(self._tail)[number - first :])

    async def free(self) -> None:
        """Have the old connection's sender stop, if there is one."""
        while self.holder is not None:
            self.wanted = True
            self.holder.cancel()
            await asyncio.wait([self.holder])
        self.wanted = False


class Shelf:
    """All kept streams of a gateway."""

    def __init__(self, seconds: float, most: int) -> None:
        """A stream that nobody reads is kept for `seconds`; of more than `most`, the oldest go."""
        self.seconds, self._most = seconds, most
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._ends: dict[str, asyncio.TimerHandle] = {}

    def keep(
        self, name: str, owner: tuple[str, bytes], begun: Answer, shape: Shape, mark: Mark | None = None, sent: int = 0
    ) -> Kept | None:
        """A stream that has begun; None where none is kept."""
        if self.seconds <= 0 or self._most <= 0 or name in self._kept:
            return None
        while len(self._kept) >= self._most:
            self.drop(next(iter(self._kept)))
        kept = self._kept[name] = Kept(name, owner, begun, shape, mark, sent)
        begun.keeps = True
        return kept

    def find(self, name: str, owner: tuple[str, bytes]) -> Kept | None:
        """The stream of that name, if it is kept and the owner's."""
        kept = self._kept.get(name)
        return kept if kept is not None and kept.owner == owner else None

    def hold(self, kept: Kept) -> None:
        """The running task sends it from now on."""
        self._rest(kept.name)
        kept.holder = asyncio.current_task()

    def leave(self, kept: Kept) -> None:
        """Nobody reads it now: it goes after a while."""
        kept.holder = None
        if self._kept.get(kept.name) is kept:
            self._rest(kept.name)
            self._ends[kept.name] = asyncio.get_running_loop().call_later(self.seconds, self.drop, kept.name)

    def drop(self, name: str) -> None:
        """It can no more be taken up; what it left of a turn is over. One that is being read goes on."""
        self._rest(name)
        kept = self._kept.pop(name, None)
        if kept is not None:
            kept.begun.keeps = False
            if kept.holder is None:
                kept.begun.cancel()

    def _rest(self, name: str) -> None:
        timer = self._ends.pop(name, None)
        if timer is not None:
            timer.cancel()


class Pen:
    """Who sends a stream, kept or not: makes parts events, and numbers them for as long as it has it."""

    def __init__(self, shelf: Shelf, kept: Kept | None, shape: Shape, begun: Answer) -> None:
        self._shelf, self._kept, self._shape, self._begun = shelf, kept, shape, begun

    def __enter__(self) -> Callable[[Sequence[Part]], bytes]:
        if self._kept is not None:
            self._shelf.hold(self._kept)
        return self._events

    def __exit__(self, kind: type[BaseException] | None, wrong: BaseException | None, trace: object) -> None:
        kept = self._kept
        if kept is None:
            return
        self._shelf.leave(kept)
        if kind is not None and issubclass(kind, Exception):  # it is over, and not for want of a reader
            self._shelf.drop(kept.name)
        elif kind is not None and kept.wanted:
            raise ClientGone from None

    def end(self) -> bytes:
        """What ends the stream, numbered."""
        ending = self._shape.last(self._begun.usage)
        if self._kept is None:
            return ending
        self._kept.whole = True
        return self._kept.number(ending)

    def _events(self, parts: Sequence[Part]) -> bytes:
        """No event where the beginning of a call has to wait for more."""
        return b"".join(map(self._event, parts))

    def _event(self, part: Part) -> bytes:
        events, kept = self._shape.event(part), self._kept
        if kept is None:
            return events
        reader = kept.reader
        mark = reader.after(part, self._begun.voices[part.choice].tokens) if reader is not None else b""
        return kept.number(events, mark) if events else b""
