"""All replicas of one model behind the `Client` face.

Holds links and dated loads; owns nothing. Who comes and goes, `roster` tells. Every call from one event loop.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.client import Stream
from actors.demand import Wish
from actors.directory import Entry
from actors.gateway_link import Link, LinkStream
from actors.journal import URGENT, Asked, Journal
from actors.messages import Load, SamplingParams
from actors.routing import Router, Ticket, queue_of
from cluster.errors import DeadlineExceeded, NotReady, Overloaded, StrataError, Unavailable
from cluster.scheduling import admission
from cluster.scheduling.retries import Budget

_RETRY_SECONDS = 0.3
TAKEN_OFF_SECONDS = 1.5  # before who waits is told so: asked again, the gateway of that deploy answers by then
_REPLAYS = 16  # replicas that one request may be lost with, by default
_PATIENCE_SECONDS = 600.0  # for another replica, where a request has no deadline
_TRIES = 3  # replicas that are asked before a request is refused: nothing of it has been answered yet


@dataclass(frozen=True, slots=True)
class Hold:
    """So many requests may wait so long for a replica where none is left."""

    seconds: float
    requests: int


async def _never() -> bool:
    return False


class Replicas:
    """One model."""

    def __init__(
        self,
        model: str,
        replays: int = _REPLAYS,
        clock: Callable[[], float] = time.monotonic,
        roll: Callable[[], int] = lambda: secrets.randbits(32),
        hold: Hold | None = None,
        rules: admission.Rules | None = None,
        sleeps: bool = False,
        serving: int | None = None,
    ) -> None:
        """`replays`: as often is a request taken up by another replica when the one that has it is lost.

        `hold`: how long requests wait for a replica where none is left, instead of being refused at once; None: not at
        all. `sleeps`: none may be left because nobody asked for long; a request that is held wakes one. `roll` gives
        random whole numbers. `rules` say who may wait for a turn. `serving`: so many answer, those that have been there
        longest; the others are spare until one of them is lost. None: all.
        """
        self.model, self._replays = model, replays
        self._clock, self._rules, self._budget = clock, rules or admission.Rules(), Budget()
        self._news = asyncio.Event()  # set, and replaced, with every replica that comes
        self._links: dict[str, Link] = {}
        self._contexts: dict[str, int] = {}
        self._context: int | None = None  # the last that was known
        self.registry: Mapping[str, str] = {}  # the version that the replica serves which came last
        self._hold, self._held = hold or Hold(0.0, 0), 0
        self._sleeps, self._came, self._serving = sleeps, 0, serving
        self.on_held: Callable[[], None] = lambda: None  # called when a request finds no replica and waits for one
        self.withdrawn: Callable[[], Awaitable[bool]] = _never  # whether no replica will come again
        self._router = Router(clock, roll=roll)

    @property
    def context_tokens(self) -> int:
        """What every replica can hold; while none is left, what they could. Raises NotReady before one is up."""
        if self._context is None or not (self._contexts or self._hold.requests):
            raise NotReady(self.model, "no replica has made its first token yet")
        return self._context

    @property
    def loads(self) -> dict[str, Load]:
        return {name: link.load for name, link in self._links.items()}

    def waiting(self) -> dict[str, int]:
        """Prompt tokens on their way to a first token, by replica, as the router thinks."""
        return self._router.waiting()

    @property
    def ready(self) -> bool:
        """Whether a request is answered; one that has to wake a replica is, too."""
        return bool(self._links) or (self._sleeps and self._context is not None)

    def rouse(self) -> bool:
        """Wake a replica where all sleep, or keep one awake, as a request does. Whether there is one."""
        self._came += 1
        return bool(self._links)

    @property
    def wish(self) -> Wish:
        """What is asked of the model here."""
        outstanding = sum(link.outstanding for link in self._links.values())
        return Wish(self._held, outstanding, self._came, self._context or 0)

    def remember(self, context_tokens: int) -> None:
        """What a replica could hold that was there before this gateway was."""
        if self._context is None and context_tokens:
            self._context = context_tokens

    def admit(self, tokens: int, *, priority: int = 0, deadline: float | None = None) -> None:
        """See `client.Client`. Where no replica is left, that is for `submit` to say."""
        seconds = admission.away_seconds(list(self._queues(priority).values()), tokens, deadline, self._rules)
        if seconds is not None:
            raise Overloaded(self.model, sum(load.waiting for load in self.loads.values()), seconds)

    async def submit(
        self,
        prompt: tuple[int, ...],
        params: SamplingParams,
        *,
        seed: int,
        choice: int = 0,
        salt: str = "",
        priority: int = 0,
        deadline: float | None = None,
    ) -> Stream:
        """See `client.Client`. A replica that dies or is full before it took the sequence costs another try.

        One that is lost later costs a pause: the sequence goes on at another, or at the new one. So does a request that
        comes when none is left, for as long as `hold` says.
        """
        self._came += 1
        until = None if deadline is None else asyncio.get_running_loop().time() + deadline
        asked = Asked(prompt, params, seed, choice, salt, until, deadline or _PATIENCE_SECONDS, priority=priority)
        self._budget.begun(self._clock(), self._running)
        try:
            stream = await self._place(asked, self._takers(asked, deadline))
        except Unavailable as refused:
            stream = await self._held_back(asked, refused)
        return Journal(asked, stream, self._resume, self._replays) if self._replays else stream

    def _queues(self, priority: int) -> dict[str, admission.Queue]:
        """What a request of that priority would find at each replica that it may go to."""
        sent = self._router.waiting()
        serving = self._servers()
        usable = ((name, serving[name]) for name in self._router.usable(serving))
        return {name: queue_of(link.load, link.outstanding, sent.get(name, 0), priority) for name, link in usable}

    def _takers(self, asked: Asked, deadline: float | None) -> Mapping[str, Link]:
        """Where it would not wait too long. It was let in: where that is nowhere by now, any will do."""
        tokens = len(asked.prompt)
        takers = {
            name: self._links[name]
            for name, queue in self._queues(asked.priority).items()
            if admission.away_seconds([queue], tokens, deadline, self._rules) is None
        }
        return takers or self._servers()

    def _servers(self, lost: Link | None = None) -> Mapping[str, Link]:
        """Who answers, beside `lost`: a spare one takes its place."""
        there = ((name, link) for name, link in self._links.items() if link is not lost)
        return dict(itertools.islice(there, self._serving))

    async def _resume(self, asked: Asked) -> LinkStream:
        """A replica that goes on with what was lost, waiting for one until the deadline. Raises DeadlineExceeded."""
        until = asyncio.get_running_loop().time() + _PATIENCE_SECONDS if asked.until is None else asked.until
        return await self._wait(asked, until, (Unavailable, Overloaded))

    async def _held_back(self, asked: Asked, refused: Unavailable) -> LinkStream:
        """The first replica that comes within `hold`. Raises `refused` where it may not wait, or waited in vain."""
        if self._held >= self._hold.requests or self._context is None:
            raise refused
        until = asyncio.get_running_loop().time() + self._hold.seconds
        self._held += 1
        self.on_held()
        try:
            return await self._wait(asked, until if asked.until is None else min(until, asked.until), (Unavailable,))
        except DeadlineExceeded:
            if asked.until is not None and asked.until <= until:
                raise
            raise refused from None
        finally:
            self._held -= 1

    async def _wait(self, asked: Asked, until: float, passing: tuple[type[StrataError], ...]) -> LinkStream:
        """A replica's stream, tried with all that come until then; `passing` are refusals that may pass."""
        loop, lost = asyncio.get_running_loop(), asked.holder
        began = loop.time()
        while True:
            news = self._news
            try:
                return await self._place(asked, self._servers(lost))
            except passing as refused:
                left = until - loop.time()
                if left <= 0:
                    raise DeadlineExceeded("the request", asked.seconds) from refused
                if not self._links and loop.time() - began >= TAKEN_OFF_SECONDS and await self.withdrawn():
                    raise Unavailable(self.model, "it was taken off by a deploy; ask again") from refused
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _RETRY_SECONDS)):
                        await news.wait()

    async def _place(self, asked: Asked, links: Mapping[str, Link]) -> LinkStream:
        left = dict(links)
        refused: Unavailable | Overloaded | None = None
        for _ in range(min(_TRIES, len(left))):
            if asked.holder is not None and not self._budget.take(self._clock(), self._running):
                break  # it was sent before: what is tried again must not become the load itself
            ticket = self._choose(asked, left)
            link = asked.holder = left.pop(ticket.replica)
            try:
                stream = link.submit(asked.prompt, asked.params, **_more(asked))
                stream.follower = Followed(ticket, asked, len(asked.emitted))
                await _accepted(stream)
            except Unavailable as error:
                ticket.failed()
                asked.suspected(error)
                refused = error
            except Overloaded as error:
                refused = error
            else:
                return stream
        if refused is not None:
            raise refused
        if left:
            raise Unavailable(self.model, "too many requests are being tried again")
        raise Unavailable(self.model, "none of its replicas is up; they are being started")

    @property
    def _running(self) -> int:
        return sum(link.outstanding for link in self._links.values())

    def _choose(self, asked: Asked, links: Mapping[str, Link]) -> Ticket:
        """What is out already is part of the prompt by now."""
        loads = {name: (link.load, link.outstanding) for name, link in links.items()}
        return self._router.choose((*asked.prompt, *asked.emitted), asked.salt, loads)

    def adopt(self, name: str, link: Link, entry: Entry) -> None:
        """A replica that can be sent to."""
        self._links[name], self._contexts[name] = link, entry.context_tokens
        self.registry = dict(entry.registry)
        self._context = min(self._contexts.values())
        self._router.add(name, entry.kv_tokens)
        self._news.set()
        self._news = asyncio.Event()

    def drop(self, name: str) -> None:
        """A replica that cannot."""
        self._contexts.pop(name, None)
        self._links.pop(name, None)
        self._router.remove(name)


@dataclass(frozen=True, slots=True)
class Followed:
    """A stream's `Follower`: its ticket hears of it, and at the end of all that was said."""

    ticket: Ticket
    asked: Asked
    sent: int  # tokens that were out when it was sent there: part of the ticket's prompt

    def first(self, cached: int) -> None:
        self.ticket.first(cached)

    def ended(self) -> None:
        self.ticket.ended(self.asked.emitted[self.sent :])

    def failed(self) -> None:
        self.ticket.failed()


def _more(asked: Asked) -> dict[str, Any]:
    more = {"seed": asked.seed, "choice": asked.choice, "salt": asked.salt, "suspect": asked.suspect}
    left = None if asked.until is None else max(0.0, asked.until - asyncio.get_running_loop().time())
    if not (asked.lives or asked.emitted):
        return {**more, "deadline": left, "priority": asked.priority}
    return {**more, "deadline": left, "emitted": tuple(asked.emitted), "priority": URGENT}


async def _accepted(stream: LinkStream) -> None:
    try:
        await stream.accepted()
    except asyncio.CancelledError:
        stream.cancel()
        raise
