"""One sequence that outlives its replica: what was asked and what came of it, taken up elsewhere when that one is lost.

Kept by the gateway that holds the client. A token depends on its request, seed and position alone, so a replica that is
given the tokens that are out already goes on with the very next one: the reader sees a pause. Knows streams, counts and
errors. Knows nothing of sockets, HTTP or text.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from actors.client import Stream
from actors.messages import Delta, SamplingParams
from cluster.errors import GivenUp, StrataError, Unavailable

URGENT = -1  # the priority of what was running already: it has waited once

DEADLY = 2  # replicas lost in a row at the same token of a request, before it is thought to be what kills them


@dataclass(slots=True)
class Asked:
    """What to submit. `emitted` grows as tokens come.

    `until`: the deadline on the caller's clock, None for none; `seconds` are those that it gave.
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    seed: int
    choice: int
    salt: str
    until: float | None
    seconds: float
    emitted: list[int] = field(default_factory=list)
    lives: int = 0  # replicas that it was lost with
    holder: Any = None  # the connection that it was last sent over; where that was lost it is not asked again


Resume = Callable[[Asked], Awaitable[Stream]]


class Journal:
    """See `client.Stream`. `resume` finds a replica, however long the deadline lets it take."""

    def __init__(self, asked: Asked, stream: Stream, resume: Resume, most_lives: int) -> None:
        self._asked, self._stream, self._resume, self._most = asked, stream, resume, most_lives
        self._reached = 0  # tokens that were out when a replica was lost
        self._deaths = 0  # in a row since then, without another token
        self._told = False  # whether the reader has a first delta, with what only that one tells
        self._cancelled = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            try:
                async for delta in self._stream:
                    yield self._heard(delta)
                return
            except Unavailable as lost:
                if self._cancelled:
                    raise
                self._count(lost)
            self._stream = await self._resume(self._asked)
            self._stop_if_gone()

    def drain(self) -> list[Delta]:
        return [self._heard(delta) for delta in self._stream.drain()]

    def cancel(self) -> None:
        self._cancelled = True
        self._stream.cancel()

    def _stop_if_gone(self) -> None:
        """Whoever cancelled while another replica was looked for had only the lost stream to cancel."""
        if self._cancelled:
            self._stream.cancel()

    def _heard(self, delta: Delta) -> Delta:
        self._asked.emitted += delta.tokens
        if self._told:
            delta = replace(delta, cached_tokens=0, queued_seconds=0.0, prefill_seconds=0.0)
        self._told = self._told or bool(delta.tokens)
        return delta

    def _count(self, lost: StrataError) -> None:
        """Raises the loss where nothing is to be taken up, GivenUp for what replicas die of."""
        self._asked.lives += 1
        out = len(self._asked.emitted)
        self._deaths = self._deaths + 1 if out == self._reached and self._asked.lives > 1 else 1
        self._reached = out
        if self._asked.lives > self._most:
            raise lost
        if self._deaths >= DEADLY:
            raise GivenUp(self._deaths, out)
