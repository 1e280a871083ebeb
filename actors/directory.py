"""Who serves which model where: leaders announce themselves, gateways watch.

A plain class that an actor of its own runs. Holds nothing that could not be learnt again: leaders repeat themselves,
so that after a restart it is whole within one interval. Who has fallen silent is dropped.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from actors.news import News

ANNOUNCE_SECONDS = 2.0
SILENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One live replica: where its link listens, and what `strata status` shows of it."""

    model: str
    replica: str
    host: str
    port: int
    node: str
    context_tokens: int
    kv_tokens: int
    leader_pid: int
    shard_pids: tuple[int, ...]
    cores: tuple[tuple[int, ...], ...]
    load_seconds: float
    registry: tuple[tuple[str, str], ...] = ()  # which version it serves, as `Pinned.told` says; none of a folder


class Directory:
    """All calls from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = secrets.token_urlsafe(32)
        self._entries: dict[str, tuple[Entry, float]] = {}
        self._news = News()

    async def secret(self) -> str:
        """What a gateway shows a leader."""
        return self._secret

    async def announce(self, entry: Entry) -> str:
        """A leader is up, or still is: the secret that gateways will show it."""
        known = self._entries.get(entry.replica)
        self._entries[entry.replica] = (entry, self._clock())
        if known is None or known[0] != entry:
            self._news.bump()
        return self._secret

    async def withdraw(self, replica: str) -> None:
        """A leader is closing: send it nothing more."""
        if self._entries.pop(replica, None) is not None:
            self._news.bump()

    async def entries(self) -> tuple[Entry, ...]:
        """Everyone who spoke within `SILENCE_SECONDS`."""
        self._drop_silent()
        return tuple(entry for entry, _ in self._entries.values())

    async def watch(self, revision: int, seconds: float) -> tuple[int, str, tuple[Entry, ...]]:
        """The state once it is newer than `revision`, or after `seconds`: its revision, the secret, the entries."""
        await self._news.beyond(revision, seconds)
        entries = await self.entries()  # before the revision: it may drop the silent
        return self._news.revision, self._secret, entries

    def _drop_silent(self) -> None:
        now = self._clock()
        silent = [name for name, (_, heard) in self._entries.items() if now - heard > SILENCE_SECONDS]
        for name in silent:
            del self._entries[name]
        if silent:
            self._news.bump()
