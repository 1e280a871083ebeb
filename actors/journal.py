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
from cluster.errors import GivenUp, ReplicaLost, StrataError, SuspectLost, Unavailable
from cluster.scheduling.admission import MOST_URGENT

URGENT = MOST_URGENT - 1  # the priority of what was running already: it has waited once

DEADLY = 2  # replicas lost in a row, each with this request as the only beginner, before it is thought to kill them


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
    died: int = 0  # of those which died and were not merely ended
    suspect: bool = False  # the last that it began on died of one of its beginners, or of anything
    deaths: int = 0  # in a row, that it was the only beginner in
    holder: Any = None  # the connection that it was last sent over; where that was lost it is not asked again
    priority: int = 0

    def suspected(self, lost: StrataError) -> None:
        """A replica was lost that had this. Raises GivenUp for what replicas die of.

        The leader tells who was to begin in the step that its gang died in. Where it was many, they begin one at a
        time from then on (`Submit.suspect`); where it was one, that is evidence. What was beside it with a token to
        show, or waited, is suspected of nothing, nor is anybody where the leader died and nobody tells. An innocent is
        given up where two gangs die of something else, one after the other, each in the one step that it begins in.
        """
        if not isinstance(lost, SuspectLost):
            return
        self.suspect = True
        self.deaths += lost.beginners == 1
        if self.deaths >= DEADLY:
            raise GivenUp(self.deaths, len(self.emitted))

    def heard(self, tokens: tuple[int, ...]) -> None:
        """These came of it."""
        self.emitted += tokens
        if tokens:
            self.suspect, self.deaths = False, 0


Resume = Callable[[Asked], Awaitable[Stream]]


class Journal:
    """See `client.Stream`. `resume` finds a replica, however long the deadline lets it take."""

    def __init__(self, asked: Asked, stream: Stream, resume: Resume, most_lives: int) -> None:
        self._asked, self._stream, self._resume, self._most = asked, stream, resume, most_lives
        self._told = False  # whether the reader has a first delta, with what only that one tells
        self._cancelled = False
        self._paused = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        if self._paused:
            self._paused = False
            self._stream = await self._resume(self._asked)
            self._stop_if_gone()
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

    @property
    def lost(self) -> int:
        return self._asked.died

    def pause(self) -> bool:
        """What is out is written down: any replica goes on with it."""
        self._paused = True
        self._asked.holder = None  # it is not lost: its cache knows the answer so far
        self._stream.cancel()
        return True

    def _stop_if_gone(self) -> None:
        """Whoever cancelled while another replica was looked for had only the lost stream to cancel."""
        if self._cancelled:
            self._stream.cancel()

    def _heard(self, delta: Delta) -> Delta:
        self._asked.heard(delta.tokens)
        if self._told:
            delta = replace(delta, cached_tokens=0, queued_seconds=0.0, prefill_seconds=0.0)
        self._told = self._told or bool(delta.tokens)
        return delta

    def _count(self, lost: StrataError) -> None:
        """Raises the loss where nothing is to be taken up, GivenUp for what replicas die of."""
        self._asked.lives += 1
        self._asked.died += isinstance(lost, ReplicaLost)
        if self._asked.lives > self._most:
            raise lost
        self._asked.suspected(lost)
