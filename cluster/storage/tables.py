"""Tables in SQLite or PostgreSQL: opens what a URL names. What stands in them is their owner's.

SQLAlchemy is imported here and by owners of tables, where there is something to keep or to ask: it takes 0.25 s.
"""

from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from cluster.errors import ExtraMissing, SettingsInvalid

KINDS = ("sqlite", "postgresql")
BUSY_SECONDS = 30.0  # for another process to end its transaction
_EXAMPLES = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"


def open_tables(url: str, key: str) -> Engine:
    """The database at `url`, unasked yet; `key` is the setting. Raises SettingsInvalid and ExtraMissing."""
    found = parsed(url, key)
    if found.get_backend_name() == "sqlite":
        if not found.database or found.database == ":memory:":
            raise SettingsInvalid(key, url, "name a file, as other processes have to see it: sqlite:///FILE")
        Path(found.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(found, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _log_ahead)
        return engine
    try:
        return create_engine(found.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except ModuleNotFoundError:
        raise ExtraMissing(f"{key}: {found.render_as_string()}", "postgresql") from None


def parsed(url: str, key: str) -> URL:
    """The parts of a URL that this can open. Raises SettingsInvalid, never with the password."""
    try:
        found = make_url(url)
    except ArgumentError:
        raise SettingsInvalid(key, url.rpartition("@")[2], f"is no URL; {_EXAMPLES}") from None
    if found.drivername not in KINDS:
        raise SettingsInvalid(key, found.render_as_string(), _EXAMPLES)
    return found


def _log_ahead(connection: object, _record: object) -> None:
    """Readers and a writer do not wait for one another (SQLite's write-ahead log)."""
    connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[attr-defined]
