"""The tables of runs, beside the registry, and transactions on them.

Knows columns. What may stand in them, and what moves from where to where, is said by `runs` and `watched`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Column, Connection, Float, Integer, MetaData, String, Table, Text
from sqlalchemy.exc import DBAPIError, IntegrityError

from cluster.errors import Unavailable
from cluster.storage.tables import open_tables

KEY = "registry.metadata"

TABLES = MetaData()
RUNS = Table(
    "strata_runs", TABLES,
    Column("id", String(80), primary_key=True),
    Column("pipeline", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("model", String(64), nullable=False),
    Column("state", String(20), nullable=False),
    Column("why", String(500), nullable=False),
    Column("by", String(500), nullable=False),
    Column("request", Integer),
    Column("declared", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("ended", Float(53)),
    Column("job", String(200), nullable=False),
    Column("surroundings", Text, nullable=False),
)  # fmt: skip
STEPS = Table(
    "strata_steps", TABLES,
    Column("run", String(80), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("name", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("began", Float(53)),
    Column("ended", Float(53)),
    Column("attempts", Integer, nullable=False),
    Column("share", Float(53), nullable=False),
    Column("note", String(500), nullable=False),
    Column("numbers", Text, nullable=False),
    Column("made", Text, nullable=False),
)  # fmt: skip
WATCHED = Table(
    "strata_watched", TABLES,
    Column("pipeline", String(64), primary_key=True),
    Column("declared", Text, nullable=False),
    Column("surroundings", Text, nullable=False),
    Column("seen", Text),
    Column("by", String(500), nullable=False),
    Column("problem", Text, nullable=False),
)  # fmt: skip


class Tables:
    """The database at `url`."""

    def __init__(self, url: str) -> None:
        """Raises SettingsInvalid and ExtraMissing."""
        self._engine, self._there = open_tables(url, KEY), False

    @contextmanager
    def begun(self) -> Iterator[Connection]:
        """A transaction, with the tables there. Raises Unavailable."""
        try:
            with self._engine.begin() as connection:
                if not self._there:
                    TABLES.create_all(connection)
                yield connection
            self._there = True
        except IntegrityError:
            raise
        except DBAPIError as wrong:
            said = str(wrong.orig).strip().partition("\n")[0]
            raise Unavailable(f"the runs in {self._engine.url.render_as_string()}", f"{said}; see {KEY}") from None
