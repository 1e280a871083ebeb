"""Keeps every model's replicas up with the directory: a link to each that it names, for as long as it names it.

Knows entries and connections. Knows nothing of sequences. Every call from one event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from actors.directory import ANNOUNCE_SECONDS, Entry
from actors.gateway_link import Link
from actors.replicas import Replicas

Watch = Callable[[int, float], Awaitable[tuple[int, str, tuple[Entry, ...]]]]

_WATCH_SECONDS = 20.0
_RETRY_SECONDS = 0.3


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
                try:
                    if await link.welcomed():
                        self._open[name] = link
                        if name in self._entries:  # it may have gone while we connected
                            replicas.adopt(name, link, entry)
                        await link.end()
                        self._open.pop(name)
                        replicas.drop(name)
                finally:
                    link.close()  # also where this is cancelled before anybody else knows of it
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._kept.discard(name)

    def _spawn(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
