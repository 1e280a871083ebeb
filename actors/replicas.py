"""All replicas of one model behind the `Client` face, kept up with the directory.

Holds links and dated loads; owns nothing. Every call from one event loop.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.client import Stream
from actors.directory import ANNOUNCE_SECONDS, Entry
from actors.gateway_link import Link, LinkStream
from actors.journal import URGENT, Asked, Journal
from actors.messages import Load, SamplingParams
from actors.routing import Router, Ticket
from cluster.errors import DeadlineExceeded, NotReady, Overloaded, Unavailable

Watch = Callable[[int, float], Awaitable[tuple[int, str, tuple[Entry, ...]]]]

_WATCH_SECONDS = 20.0
_RETRY_SECONDS = 0.3
_REPLAYS = 16  # replicas that one request may be lost with, by default
_PATIENCE_SECONDS = 600.0  # for another replica, where a request has no deadline
_TRIES = 3  # replicas that are asked before a request is refused: nothing of it has been answered yet


class Replicas:
    """One model."""

    def __init__(self, model: str, replays: int = _REPLAYS) -> None:
        """`replays`: as often is a request taken up by another replica when the one that has it is lost."""
        self.model, self._replays = model, replays
        self._news = asyncio.Event()  # set, and replaced, with every replica that comes
        self._links: dict[str, Link] = {}
        self._contexts: dict[str, int] = {}
        self._router = Router(time.monotonic)

    @property
    def context_tokens(self) -> int:
        """What every replica can hold. Raises NotReady before one is up."""
        if not self._contexts:
            raise NotReady(self.model, "no replica has made its first token yet")
        return min(self._contexts.values())

    @property
    def loads(self) -> dict[str, Load]:
        return {name: link.load for name, link in self._links.items()}

    @property
    def ready(self) -> bool:
        return bool(self._links)

    async def submit(
        self,
        prompt: tuple[int, ...],
        params: SamplingParams,
        *,
        seed: int,
        choice: int = 0,
        salt: str = "",
        deadline: float | None = None,
    ) -> Stream:
        """See `client.Client`. A replica that dies or is full before it took the sequence costs another try.

        One that is lost later costs a pause: the sequence goes on at another, or at the new one.
        """
        until = None if deadline is None else asyncio.get_running_loop().time() + deadline
        asked = Asked(prompt, params, seed, choice, salt, until, deadline or _PATIENCE_SECONDS)
        stream = await self._place(asked, self._links)
        return Journal(asked, stream, self._resume, self._replays) if self._replays else stream

    async def _resume(self, asked: Asked) -> LinkStream:
        """A replica that goes on with what was lost, waiting for one until the deadline. Raises DeadlineExceeded."""
        loop, lost = asyncio.get_running_loop(), asked.holder
        until = loop.time() + _PATIENCE_SECONDS if asked.until is None else asked.until
        while True:
            news = self._news
            try:
                return await self._place(asked, {n: link for n, link in self._links.items() if link is not lost})
            except (Unavailable, Overloaded) as refused:
                left = until - loop.time()
                if left <= 0:
                    raise DeadlineExceeded("the request", asked.seconds) from refused
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _RETRY_SECONDS)):
                        await news.wait()

    async def _place(self, asked: Asked, links: Mapping[str, Link]) -> LinkStream:
        left = dict(links)
        refused: Unavailable | Overloaded | None = None
        for _ in range(min(_TRIES, len(left))):
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
        raise Unavailable(self.model, "none of its replicas is up; they are being started")

    def _choose(self, asked: Asked, links: Mapping[str, Link]) -> Ticket:
        """What is out already is part of the prompt by now."""
        loads = {name: (link.load, link.outstanding) for name, link in links.items()}
        return self._router.choose((*asked.prompt, *asked.emitted), asked.salt, loads)

    def adopt(self, name: str, link: Link, entry: Entry) -> None:
        """A replica that can be sent to."""
        self._links[name], self._contexts[name] = link, entry.context_tokens
        self._router.add(name, entry.kv_tokens)
        self._news.set()
        self._news = asyncio.Event()

    def drop(self, name: str) -> None:
        """A replica that cannot."""
        self._contexts.pop(name, None)
        self._links.pop(name, None)
        self._router.remove(name)


class Roster:
    """Keeps a link to every replica that the directory names, for as long as it names it."""

    def __init__(self, models: Mapping[str, Replicas], watch: Watch) -> None:
        self._models, self._watch = models, watch
        self._entries: dict[str, Entry] = {}
        self._kept: set[str] = set()  # replicas that a task keeps a link to
        self._open: dict[str, Link] = {}
        self._secret = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Follow the directory from now on, on the running loop."""
        self._spawn(self._follow())

    async def close(self) -> None:
        """Hang up everywhere."""
        for task in list(self._tasks):
            task.cancel()
        for link in list(self._open.values()):
            link.close()

    async def _follow(self) -> None:
        revision = -1
        while True:
            try:
                revision, secret, entries = await self._watch(revision, _WATCH_SECONDS)
            except Exception:  # noqa: BLE001 — the directory's process is being remade; what we have still works
                revision = -1
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            remade, self._secret = bool(self._secret) and secret != self._secret, secret
            if remade:  # it knows nobody yet: leaders repeat themselves before it may be believed
                revision = -1
                await asyncio.sleep(2 * ANNOUNCE_SECONDS)
                continue
            self._reconcile(entries)

    def _reconcile(self, entries: tuple[Entry, ...]) -> None:
        self._entries = {entry.replica: entry for entry in entries if entry.model in self._models}
        for replicas in self._models.values():
            for name in [name for name in replicas.loads if name not in self._entries]:
                replicas.drop(name)  # its streams go on; it gets no new ones
        for name, entry in self._entries.items():
            link = self._open.get(name)
            if link is not None:
                self._models[entry.model].adopt(name, link, entry)
            elif name not in self._kept:
                self._kept.add(name)
                self._spawn(self._keep(entry))

    async def _keep(self, entry: Entry) -> None:
        """Be connected to one replica until the directory forgets it and its streams are over."""
        name, replicas = entry.replica, self._models[entry.model]
        try:
            while name in self._entries:
                try:
                    link = await Link.connect(name, entry.host, entry.port, self._secret)
                except OSError:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if await link.welcomed():
                    self._open[name] = link
                    if name in self._entries:  # it may have gone while we connected
                        replicas.adopt(name, link, entry)
                    await link.end()
                    self._open.pop(name)
                    replicas.drop(name)
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._kept.discard(name)

    def _spawn(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
    if not asked.lives:
        return {**more, "deadline": None if asked.until is None else asked.seconds}
    left = None if asked.until is None else max(0.0, asked.until - asyncio.get_running_loop().time())
    return {**more, "deadline": left, "emitted": tuple(asked.emitted), "priority": URGENT}


async def _accepted(stream: LinkStream) -> None:
    try:
        await stream.accepted()
    except asyncio.CancelledError:
        stream.cancel()
        raise
