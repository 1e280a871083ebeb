"""What has happened and not been told yet to each who wants to hear: kept until it has been, whoever is killed.

Events and the place in the history up to which they were read are written together, so that none is lost and none is
made twice. Owns the tables. Knows nothing of how an event is told.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from actors.registry import disk, events
from actors.registry.events import Event
from actors.registry.registry import Registry
from cluster.storage.tables import open_tables

FILE = "outbox.db"
WAITS, TOLD, GIVEN_UP = "waits", "told", "given up"
KEPT_SECONDS = 7 * 86_400.0  # of what was told, for those who look

_tables = MetaData()
_MARKS = Table("strata_event_marks", _tables, Column("model", String(64), primary_key=True), Column("marks", Text))
_HOOKS = Table("strata_hooks", _tables, Column("hook", String(64), primary_key=True))
_OUTBOX = Table(
    "strata_outbox", _tables,
    Column("hook", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("tries", BigInteger, nullable=False),
    Column("next", Float(53), nullable=False),  # seconds since 1970
    Column("since", Float(53), nullable=False),  # when it came in, or was told or given up
    Column("said", String(500), nullable=False),  # how the last try ended
    Column("place", BigInteger, nullable=False),  # in the order of what happened
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Letter:
    """One event for one hook: `body` as JSON, the same at every try; `since`: when it came, or ended."""

    hook: str
    id: str
    kind: str
    at: int
    body: str
    state: str
    tries: int
    next: float
    since: float
    said: str
    place: int


@disk.all_explained
class Outbox:
    """The events of `registry` for whoever wants them; one process at a time changes it."""

    def __init__(self, registry: Registry, wall: Callable[[], float] = time.time) -> None:
        self._registry, self._wall = registry, wall
        self._path = registry.folder / FILE
        self._engine = open_tables(f"sqlite:///{self._path}", "registry.folder")
        with self._begun() as connection:
            _tables.create_all(connection)

    def gather(self, hooks: Mapping[str, Sequence[str]]) -> int:
        """Read what is new and keep it for each hook that wants its kind; how many letters.

        A hook that was not known hears of what happens from now on.
        """
        with self._begun() as connection:
            known = set(connection.execute(select(_HOOKS.c.hook)).scalars())
            kept = {row.model: json.loads(row.marks) for row in connection.execute(select(_MARKS))}
            count = 0
            for model in self._registry.models():
                history = self._registry.history(model)
                now = events.marks(history)
                before = kept.get(model, {} if known else now)
                if before != now or model not in kept:
                    found = events.since(model, history, before, now)
                    count += self._keep(connection, found, {hook: hooks[hook] for hook in hooks if hook in known})
                    connection.execute(delete(_MARKS).where(_MARKS.c.model == model))
                    connection.execute(insert(_MARKS).values(model=model, marks=json.dumps(now)))
            for hook in hooks.keys() - known:
                connection.execute(insert(_HOOKS).values(hook=hook))
            for hook in known - hooks.keys():  # nobody is there who could be told
                connection.execute(delete(_HOOKS).where(_HOOKS.c.hook == hook))
                connection.execute(delete(_OUTBOX).where(_OUTBOX.c.hook == hook))
            old = (_OUTBOX.c.state != WAITS, _OUTBOX.c.since < self._wall() - KEPT_SECONDS)
            connection.execute(delete(_OUTBOX).where(*old))
        return count

    def due(self, hook: str, limit: int = 50) -> list[Letter]:
        """What a hook is to be told now, the earliest first."""
        wanted = (_OUTBOX.c.hook == hook, _OUTBOX.c.state == WAITS, _OUTBOX.c.next <= self._wall())
        with self._engine.connect() as connection:
            rows = connection.execute(select(_OUTBOX).where(*wanted).order_by(_OUTBOX.c.place).limit(limit))
            return [Letter(*row) for row in rows]

    def all(self, limit: int = 200) -> list[Letter]:
        """All there are, the latest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_OUTBOX).order_by(_OUTBOX.c.place.desc(), _OUTBOX.c.hook).limit(limit))
            return [Letter(*row) for row in rows]

    def told(self, letter: Letter, said: str) -> None:
        """It has been heard."""
        self._set(letter, state=TOLD, tries=letter.tries + 1, since=self._wall(), said=said[:500])

    def failed(self, letter: Letter, said: str, again: float | None) -> None:
        """It has not; `again`: in how many seconds it is told again, None: no more."""
        state, now = WAITS if again is not None else GIVEN_UP, self._wall()
        since = letter.since if again is not None else now
        self._set(letter, state=state, tries=letter.tries + 1, next=now + (again or 0.0), since=since, said=said[:500])

    def again(self) -> int:
        """Have all that was given up told again; how many."""
        with self._begun() as connection:
            given_up = update(_OUTBOX).where(_OUTBOX.c.state == GIVEN_UP)
            now = self._wall()
            return int(connection.execute(given_up.values(state=WAITS, tries=0, next=now, since=now)).rowcount)

    def _keep(self, connection: Connection, found: Sequence[Event], hooks: Mapping[str, Sequence[str]]) -> int:
        count, now = 0, self._wall()
        place = int(connection.execute(select(func.max(_OUTBOX.c.place))).scalar() or 0)
        for event in found:
            place += 1
            body = json.dumps({"type": event.kind, "timestamp": _stamp(event.at), "data": dict(event.data)})
            for hook, wanted in hooks.items():
                there = select(_OUTBOX.c.id).where(_OUTBOX.c.hook == hook, _OUTBOX.c.id == event.id)
                if not wants(wanted, event.kind) or connection.execute(there).first() is not None:
                    continue
                connection.execute(insert(_OUTBOX).values(
                    hook=hook, id=event.id, kind=event.kind, at=event.at, body=body, state=WAITS, tries=0, next=now,
                    since=now, said="", place=place,
                ))  # fmt: skip
                count += 1
        return count

    def _set(self, letter: Letter, **values: Any) -> None:
        where = (_OUTBOX.c.hook == letter.hook, _OUTBOX.c.id == letter.id)
        with self._begun() as connection:
            connection.execute(update(_OUTBOX).where(*where).values(**values))

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """A transaction, one at a time in any process."""
        with disk.locked(Path(f"{self._path}.lock")), self._engine.begin() as connection:
            yield connection


def wants(wanted: Sequence[str], kind: str) -> bool:
    """Whether a list such as `merge_request.merged`, `alias.*` or nothing, for all, has a kind in it."""
    return not wanted or any(one in (kind, "*") or (one.endswith(".*") and kind.startswith(one[:-1])) for one in wanted)


def _stamp(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
