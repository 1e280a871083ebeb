"""The pipelines that are watched: as declared, by whom, what was seen, what is wrong.

Owns their rows. What is due is decided in `triggers`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from cluster.errors import Conflict, NotFound, listed
from pipelines.lifecycle.tables import WATCHED, Tables


@dataclass(frozen=True, slots=True)
class Watched:
    """One. `surroundings`: see `starting.surroundings`; `seen`: `triggers.Seen` in plain values, or None."""

    pipeline: str
    declared: Mapping[str, Any]
    surroundings: Mapping[str, Any]
    seen: Mapping[str, Any] | None
    by: str
    problem: str


class Watches:
    """All of them."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def all(self) -> list[Watched]:
        """By name."""
        with self._tables.begun() as connection:
            rows = connection.execute(select(WATCHED).order_by(WATCHED.c.pipeline)).all()
        return [
            Watched(
                row.pipeline, json.loads(row.declared), json.loads(row.surroundings),
                None if row.seen is None else json.loads(row.seen), row.by, row.problem,
            )
            for row in rows
        ]  # fmt: skip

    def add(self, declared: Mapping[str, Any], surroundings: Mapping[str, Any], by: str) -> None:
        """Have a pipeline watched, or watched as it is declared now; what was seen stays."""
        name = declared["name"]
        values = {"declared": json.dumps(declared), "surroundings": json.dumps(surroundings), "by": by, "problem": ""}
        with self._tables.begun() as connection:
            changed = connection.execute(update(WATCHED).where(WATCHED.c.pipeline == name).values(**values))
            if changed.rowcount == 0:
                connection.execute(insert(WATCHED).values(pipeline=name, **values))

    def remove(self, pipelines: Iterable[str]) -> None:
        """No run of these begins by itself any more. Raises NotFound; then all of them stay."""
        with self._tables.begun() as connection:
            names = [row[0] for row in connection.execute(select(WATCHED.c.pipeline))]
            for pipeline in dict.fromkeys(pipelines):
                if connection.execute(delete(WATCHED).where(WATCHED.c.pipeline == pipeline)).rowcount == 0:
                    raise NotFound("watched pipeline", pipeline, listed(names) or ("none yet",))

    def see(self, pipeline: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
        """What was seen, where no run begins for it. Raises Conflict where another was quicker."""
        with self._tables.begun() as connection:
            see(connection, pipeline, before, after)

    def trouble(self, pipeline: str, problem: str) -> None:
        """What keeps it from being watched; empty where nothing does."""
        with self._tables.begun() as connection:
            connection.execute(update(WATCHED).where(WATCHED.c.pipeline == pipeline).values(problem=problem))


def see(
    connection: Connection, pipeline: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> None:  # fmt: skip
    """Within a transaction: what was seen goes from `before` to `after`. Raises Conflict where it is something else."""
    held = WATCHED.c.seen.is_(None) if before is None else WATCHED.c.seen == text(before)
    changed = connection.execute(update(WATCHED).where(WATCHED.c.pipeline == pipeline, held).values(seen=text(after)))
    if changed.rowcount != 1:
        raise Conflict(f"what {pipeline} has seen", "as it was", "changed by another watch, or watched no more")


def text(seen: Mapping[str, Any]) -> str:
    """As it stands in its row: the same for what is the same."""
    return json.dumps(seen, sort_keys=True)
