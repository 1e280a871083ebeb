"""What is known of all versions in tables that can be searched. The history is the truth: this follows it.

Owns the tables. Before it answers it looks whether a model's refs are where they were and reads what is new, so that
nobody who moves a ref has to think of it, and what is lost is made again.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Float,
    Index,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from actors.registry import disk, facts, query, tree
from actors.registry.desk import Desk
from actors.registry.facts import Fact, fact
from actors.registry.history import ALIASES, EVERY, HEADS, TAGS, Entry, History, numbered
from actors.registry.inspection import Fault, Faults, Place
from actors.registry.query import Comparison, Joined, Query
from actors.registry.registry import Registry
from actors.registry.requests import Requirements
from actors.registry.stages import Stage, Stages
from cluster.errors import Unavailable
from cluster.storage.tables import open_tables

FORM = 1  # of the tables' content: another one is read anew
KEY = "registry.metadata"

_tables = MetaData()
_VERSIONS = Table(
    "strata_versions", _tables,
    Column("model", String(64), primary_key=True),
    Column("commit", String(40), primary_key=True),
    Column("version", String(20), nullable=False),
    Column("author", String(500), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("stage", String(20), nullable=False),
    Column("license", String(500)),
    Column("size", BigInteger, nullable=False),
    Column("card", Text, nullable=False),
)  # fmt: skip
_FACTS = Table(
    "strata_facts", _tables,
    Column("model", String(64), nullable=False),
    Column("commit", String(40), nullable=False),
    Column("kept", String(5), nullable=False),  # "ever", or "now" for what may change
    Column("key", String(500), nullable=False),
    Column("text", String(500), nullable=False),
    Column("number", Float(53)),
)  # fmt: skip
_MARKS = Table("strata_marks", _tables, Column("model", String(64), primary_key=True), Column("mark", String(64)))
Index("strata_facts_version", _FACTS.c.model, _FACTS.c.commit)
Index("strata_facts_text", _FACTS.c.key, _FACTS.c.text)
Index("strata_facts_number", _FACTS.c.key, _FACTS.c.number)


@dataclass(frozen=True, slots=True)
class Found:
    """A version that a search found."""

    model: str
    version: str
    commit: str
    stage: str
    author: str
    at: int
    message: str
    license: str | None
    size: int


@disk.all_explained
class Catalogue:
    """The tables at `url` about the versions of `registry`; without one, a SQLite file in its folder."""

    def __init__(self, registry: Registry, url: str | None = None) -> None:
        """Raises SettingsInvalid and ExtraMissing."""
        self._registry = registry
        self._engine = open_tables(url or f"sqlite:///{registry.folder / 'metadata.db'}", KEY)

    def search(self, text: str, limit: int = 200) -> list[Found]:
        """Versions that `text` holds for, each model's latest first. Raises InvalidRequest and Unavailable."""
        wanted = query.parse(text)
        columns = [_VERSIONS.c[name] for name in Found.__slots__]
        order = (
            _VERSIONS.c.model,
            _VERSIONS.c.at.desc(),
            func.length(_VERSIONS.c.version).desc(),
            _VERSIONS.c.version.desc(),
        )
        asked = select(*columns).where(_where(wanted)).order_by(*order).limit(limit)
        with self._following() as connection:
            return [Found(*row) for row in connection.execute(asked)]

    def facts(self, model: str, commit: str) -> dict[str, list[str | float]]:
        """All that is known of one version, by key. Raises Unavailable."""
        found: dict[str, list[str | float]] = {}
        with self._following() as connection:
            for each in _known(connection, model, commit):
                found.setdefault(each.key, []).append(each.text if each.number is None else each.number)
        return found

    def refresh(self) -> None:
        """Read what is new. Raises Unavailable."""
        with self._following():
            pass

    def rebuild(self) -> int:
        """Forget all and read it again; how many versions there are. Raises Unavailable."""
        with self._begun() as connection:
            for table in (_MARKS, _FACTS, _VERSIONS):
                connection.execute(delete(table))
        with self._following() as connection:
            return int(connection.execute(select(func.count()).select_from(_VERSIONS)).scalar_one())

    def set_aside(self) -> Path | None:
        """Take a SQLite file that is broken out of the way; where it lies then. None where there is nothing to do."""
        if self._engine.name != "sqlite":
            return None
        with self._alone():
            if not self._broken():
                return None
            self._engine.dispose()
            file = Path(str(self._engine.url.database))
            aside = file.with_name(f"{file.name}.broken")
            for ending in ("-wal", "-shm"):  # of the broken one: a new one would read them
                file.with_name(file.name + ending).unlink(missing_ok=True)
            file.replace(aside)
            return aside

    def _broken(self) -> bool:
        try:
            with self._engine.connect() as connection:
                said = connection.execute(text("pragma quick_check")).scalar()
        except DBAPIError as wrong:
            return type(wrong.orig) is sqlite3.DatabaseError  # no database, or malformed; locked and full are others
        return bool(said != "ok")

    def check(self) -> list[Fault]:
        """Where the tables say something else than the history. Raises Unavailable."""
        faults = Faults()
        with self._following() as connection:
            listed = {(row[0], row[1]) for row in connection.execute(select(_VERSIONS.c.model, _VERSIONS.c.commit))}
            for model in self._registry.models():
                history = self._registry.history(model)
                moving = self._moving(model, history)
                for version, commit in numbered(history).items():
                    true = {*facts.of_tree(history.files(commit)), *moving.get(commit, ()), *_entry(history, commit)[1]}
                    if (model, commit) not in listed or set(_known(connection, model, commit)) != true:
                        faults.add(Place(model, version), "the index says something else; strata models reindex")
                    listed.discard((model, commit))
            for model, commit in sorted(listed):
                faults.add(Place(model, commit[:12]), "the index knows it and nobody else; strata models reindex")
        return faults.found()

    @contextmanager
    def _following(self) -> Iterator[Connection]:
        """A connection to tables that are where the history is."""
        with self._alone(), self._begun() as connection:
            marks = {row[0]: row[1] for row in connection.execute(select(_MARKS.c.model, _MARKS.c.mark))}
            models = self._registry.models()
            for model in models:
                mark = _mark(self._registry.history(model))
                if marks.pop(model, None) != mark:
                    self._follow(connection, model)
                    _forget(connection, _MARKS, model)
                    connection.execute(insert(_MARKS).values(model=model, mark=mark))
            for gone in marks:
                for table in (_MARKS, _FACTS, _VERSIONS):
                    _forget(connection, table, gone)
        with self._begun() as connection:
            yield connection

    def _follow(self, connection: Connection, model: str) -> None:
        history = self._registry.history(model)
        stages = Stages(self._registry).all(model)
        versions = numbered(history)
        columns = (_VERSIONS.c.commit, _VERSIONS.c.version)
        known = {row[0]: row[1] for row in connection.execute(select(*columns).where(_VERSIONS.c.model == model))}
        for commit in known.keys() - set(versions.values()):
            for table in (_FACTS, _VERSIONS):
                connection.execute(delete(table).where(table.c.model == model, table.c.commit == commit))
        for version, commit in versions.items():
            stage = stages.get(version, Stage.DRAFT).value
            if commit in known:
                where = (_VERSIONS.c.model == model, _VERSIONS.c.commit == commit)
                connection.execute(_VERSIONS.update().where(*where).values(stage=stage))
                continue
            content = history.files(commit)
            entry, more = _entry(history, commit)
            said = [*facts.of_tree(content), *more]
            connection.execute(insert(_VERSIONS).values(
                model=model, commit=commit, version=version, author=entry.author[:500], at=entry.at,
                message=entry.message.replace("\0", ""), stage=stage,
                license=next((each.text for each in said if each.key == "license"), None),
                size=sum(tree.sizes(content).values()), card=facts.card_of(content).replace("\0", ""),
            ))  # fmt: skip
            _keep(connection, model, commit, "ever", said)
        connection.execute(delete(_FACTS).where(_FACTS.c.model == model, _FACTS.c.kept == "now"))
        for commit, now in self._moving(model, history).items():
            _keep(connection, model, commit, "now", now)

    def _moving(self, model: str, history: History) -> dict[str, list[Fact]]:
        """By commit, what may change of a version: its stage, names, and what merge requests measured of it."""
        stages, found = Stages(self._registry).all(model), dict[str, list[Fact]]()
        for version, commit in numbered(history).items():
            found[commit] = [
                fact("model", model), fact("version", version), fact("stage", stages.get(version, Stage.DRAFT).value)
            ]  # fmt: skip
        for kind, key in ((ALIASES, "alias"), (HEADS, "branch"), (TAGS, "tag")):
            for name, commit in history.refs(kind).items():
                if commit in found and (key != "tag" or not name.removeprefix("v").isdigit()):
                    found[commit].append(fact(key, name))
        figures: dict[str, dict[str, float]] = {}
        for _, request in Desk(self._registry, Requirements()).all(model):
            for each in request.evaluations:
                figures.setdefault(each.commit, {}).update(each.metrics)
        for commit, metrics in figures.items():
            if commit in found:
                found[commit] += facts.flat(metrics)
        return {commit: list(dict.fromkeys(each)) for commit, each in found.items()}

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """A transaction, with the tables there."""
        try:
            with self._engine.begin() as connection:
                _tables.create_all(connection)
                yield connection
        except DBAPIError as wrong:
            where = self._engine.url.render_as_string()
            said = str(wrong.orig).strip().partition("\n")[0]
            remedy = f"see {KEY}"
            if file := self._engine.url.database if self._engine.name == "sqlite" else None:
                remedy = f"where {file} is broken, strata models reindex makes it anew from the history; {remedy}"
            raise Unavailable(f"the metadata in {where}", f"{said}; {remedy}") from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time follows. What one that was killed had locked is free again."""
        with disk.locked(self._registry.folder / "index.lock"):
            yield


def _where(wanted: Query) -> ColumnElement[bool]:
    """The query as a condition on a row of versions; values are bound, never written into it."""
    if isinstance(wanted, Joined):
        return (and_ if wanted.word == "and" else or_)(*map(_where, wanted.parts))
    if isinstance(wanted, Comparison):
        if wanted.compare == "!=":
            return and_(_known_as(wanted.key), not_(_known_as(wanted.key, _compared("=", wanted.value))))
        return _known_as(wanted.key, _compared(wanted.compare, wanted.value))
    return not_(_where(wanted.inner))


def _known_as(key: str, *more: ColumnElement[bool]) -> ColumnElement[bool]:
    same = (_FACTS.c.model == _VERSIONS.c.model, _FACTS.c.commit == _VERSIONS.c.commit)
    return exists().where(*same, _FACTS.c.key == key, *more)


def _compared(compare: str, value: str | float) -> ColumnElement[bool]:
    if compare == "~":
        return func.lower(_FACTS.c.text).contains(str(value).lower(), autoescape=True)
    column: Any = _FACTS.c.text if isinstance(value, str) else _FACTS.c.number
    made: dict[str, ColumnElement[bool]] = {
        "=": column == value, "<": column < value, "<=": column <= value, ">": column > value, ">=": column >= value,
    }  # fmt: skip
    return made[compare]


def _keep(connection: Connection, model: str, commit: str, kept: str, said: Iterable[Fact]) -> None:
    rows = [
        {"model": model, "commit": commit, "kept": kept, "key": each.key, "text": each.text, "number": each.number}
        for each in said
    ]
    if rows:
        connection.execute(insert(_FACTS), rows)


def _known(connection: Connection, model: str, commit: str) -> list[Fact]:
    columns = (_FACTS.c.key, _FACTS.c.text, _FACTS.c.number)
    asked = select(*columns).where(_FACTS.c.model == model, _FACTS.c.commit == commit)
    return [Fact(*row) for row in connection.execute(asked)]


def _forget(connection: Connection, table: Table, model: str) -> None:
    connection.execute(delete(table).where(table.c.model == model))


def _entry(history: History, commit: str) -> tuple[Entry, list[Fact]]:
    """Who made a version, when and of what."""
    entry = next(history.log(commit))
    numbers: Mapping[str, str] = {made: version for version, made in numbered(history).items()}
    parents = [fact("parent", numbers.get(parent, parent)) for parent in entry.parents]
    return entry, [fact("author", entry.author), fact("at", entry.at), fact("message", entry.message), *parents]


def _mark(history: History) -> str:
    """Another one whenever a ref of the model moves."""
    refs = {kind: history.refs(kind) for kind in EVERY}
    return hashlib.sha256(json.dumps([FORM, refs], sort_keys=True).encode()).hexdigest()
