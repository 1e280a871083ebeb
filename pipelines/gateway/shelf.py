"""Streams that may be taken up again: a client whose connection was cut sends its request once more, with
`Last-Event-ID`, and goes on with the event after that.

Keeps the end of what each stream has sent, for a bounded time, of a bounded number of them, each for the principal that
it belongs to. Whoever goes away leaves a turn that holds nothing of the engine's. Knows events as bytes.
"""

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from cluster.errors import InvalidRequest, NotFound
from pipelines.chat import Answer
from pipelines.gateway.body import ClientGone
from pipelines.gateway.shapes import Shape

TAIL_BYTES = 256 * 1024  # of events sent: what buffers between here and a client may hold at the most, and then some
_ID = re.compile(r"([A-Za-z0-9._\-]{1,64})-(\d{1,9})")
HEADER = "Last-Event-ID"


class Kept:
    """One stream. `digest` is its request's: only the same one takes it up."""

    def __init__(self, name: str, owner: tuple[str, bytes], begun: Answer, shape: Shape) -> None:
        self.name, self.owner, self.begun, self.shape = name, owner, begun, shape
        self._tail: deque[bytes] = deque()
        self._bytes = 0
        self._sent = 0
        self._prefix = f"id: {name}-".encode()
        self.holder: asyncio.Task[Any] | None = None  # who sends it now
        self.wanted = False  # by a client that has come again, while its old connection is not known to be dead
        self.whole = False  # all of it has been sent

    def number(self, events: bytes) -> bytes:
        """The events with their ids, remembered."""
        told = b""
        for event in events.split(b"\n\n")[:-1]:
            self._sent += 1
            line = b"%b%d\n%b\n\n" % (self._prefix, self._sent, event)
            self._tail.append(line)
            self._bytes += len(line)
            told += line
        while self._bytes > TAIL_BYTES and len(self._tail) > 1:
            self._bytes -= len(self._tail.popleft())
        return told

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

    def keep(self, name: str, owner: tuple[str, bytes], begun: Answer, shape: Shape) -> Kept | None:
        """A stream that has begun; None where none is kept."""
        if self.seconds <= 0 or self._most <= 0 or name in self._kept:
            return None
        while len(self._kept) >= self._most:
            self.drop(next(iter(self._kept)))
        kept = self._kept[name] = Kept(name, owner, begun, shape)
        begun.keeps = True
        return kept

    def take(self, last: str, owner: tuple[str, bytes]) -> tuple[Kept, int]:
        """The stream that an event id is of, and the event's number. Raises InvalidRequest or NotFound."""
        match = _ID.fullmatch(last)
        if match is None:
            raise InvalidRequest(HEADER, last, "send the last `id` of the stream that was cut, as it came")
        kept = self._kept.get(match[1])
        if kept is None or kept.owner != owner:  # a stranger learns nothing of whose it is
            raise NotFound("stream", match[1])
        return kept, int(match[2])

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
    """Who sends a stream, kept or not: numbers its events for as long as it has it."""

    def __init__(self, shelf: Shelf, kept: Kept | None, shape: Shape, begun: Answer) -> None:
        self._shelf, self._kept, self.shape, self._begun = shelf, kept, shape, begun

    def __enter__(self) -> Callable[[bytes], bytes]:
        if self._kept is not None:
            self._shelf.hold(self._kept)
        return self._number

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
        ending = self._number(self.shape.last(self._begun.usage))
        if self._kept is not None:
            self._kept.whole = True
        return ending

    def _number(self, events: bytes) -> bytes:
        return events if self._kept is None else self._kept.number(events)
