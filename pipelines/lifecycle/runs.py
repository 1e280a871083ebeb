"""Where runs are kept: a transaction for each step.

Owns their rows. One moves only from the state in which its mover saw it, so that of two who are at it one wins, and
a process that dies leaves what was before or what comes after. What states there are stands in `run`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from cluster.errors import Conflict, NotFound
from pipelines.lifecycle.run import ACTIVE, CUT, LEFT, OVER, PENDING, UNDER_WAY, Event, Run, State, Step, moved
from pipelines.lifecycle.tables import RUNS, STEPS, Tables
from pipelines.lifecycle.watched import see

LATEST = 5  # that whoever asks for none of them is told of
ATTEMPTS = 20  # to get the next number, of which another may be quicker to take one


class Runs:
    """All of them; `clock` gives seconds since 1970."""

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self._tables, self._clock = tables, clock

    def begin(
        self,
        declared: Mapping[str, Any],
        steps: Sequence[tuple[str, bool]],
        why: str,
        by: str,
        surroundings: Mapping[str, Any],
        request: int | None = None,
        seen: tuple[Any, Any] | None = None,
    ) -> str:
        """A new run, its id. `steps`: names, and whether each is to be done at all.

        `seen`: what the watch of this pipeline had seen and has now, which change with it or not at all: of two that
        watch one begins it. Raises Conflict for the other.
        """
        pipeline, model = declared["name"], declared["model"]
        for _ in range(ATTEMPTS):
            try:
                with self._tables.begun() as connection:
                    if seen is not None:
                        see(connection, pipeline, *seen)
                    highest = select(func.max(RUNS.c.number)).where(RUNS.c.pipeline == pipeline)
                    number = (connection.execute(highest).scalar() or 0) + 1
                    run = f"{pipeline}-{number}"
                    connection.execute(insert(RUNS).values(
                        id=run, pipeline=pipeline, number=number, model=model, state=State.QUEUED.value, why=why[:500],
                        by=by, request=request, declared=json.dumps(declared), reason="", created=self._clock(), job="",
                        surroundings=json.dumps(surroundings),
                    ))  # fmt: skip
                    for place, (name, wanted) in enumerate(steps):
                        state = PENDING if wanted else LEFT
                        connection.execute(insert(STEPS).values(
                            run=run, place=place, name=name, state=state, attempts=0, share=0.0, note="", numbers="{}",
                            made="{}",
                        ))  # fmt: skip
                return run
            except IntegrityError:
                continue  # another took the number
        raise Conflict(f"the next run of {pipeline}", "free", "taken, again and again")

    def find(self, run: str) -> Run:
        """One. Raises NotFound."""
        with self._tables.begun() as connection:
            row = connection.execute(select(RUNS).where(RUNS.c.id == run)).one_or_none()
            if row is None:
                count = connection.execute(select(func.count()).select_from(RUNS)).scalar_one()
                last = select(RUNS.c.id).order_by(RUNS.c.created.desc(), RUNS.c.number.desc()).limit(LATEST)
                more = (f"and {count - LATEST} more",) if count > LATEST else ()
                known = (*(found[0] for found in connection.execute(last)), *more)
                raise NotFound("run", run, known or ("none yet",))
            return _run(connection, row._asdict())

    def all(self, limit: int = 100, states: Sequence[State] | None = None, pipeline: str | None = None) -> list[Run]:
        """The latest first."""
        wanted = select(RUNS).order_by(RUNS.c.created.desc(), RUNS.c.number.desc()).limit(limit)
        if states is not None:
            wanted = wanted.where(RUNS.c.state.in_([state.value for state in states]))
        if pipeline is not None:
            wanted = wanted.where(RUNS.c.pipeline == pipeline)
        with self._tables.begun() as connection:
            return [_run(connection, row._asdict()) for row in connection.execute(wanted).all()]

    def known(self, model: str, runs: Iterable[str]) -> set[str]:
        """Those of these ids that are of runs for this model."""
        wanted = select(RUNS.c.id).where(RUNS.c.model == model, RUNS.c.id.in_(sorted(runs)))
        with self._tables.begun() as connection:
            return set(connection.execute(wanted).scalars())

    def surroundings(self, run: str) -> dict[str, Any]:
        """What a run was begun in: the settings' file and variables."""
        with self._tables.begun() as connection:
            found = connection.execute(select(RUNS.c.surroundings).where(RUNS.c.id == run)).scalar_one()
            return dict(json.loads(found))

    def submitted(self, run: str, job: str) -> None:
        """Which Ray job drives it."""
        with self._tables.begun() as connection:
            connection.execute(update(RUNS).where(RUNS.c.id == run).values(job=job))

    def move(self, run: str, event: Event, reason: str = "") -> State:
        """What `event` makes of a run. Raises NotFound, and Conflict where it cannot happen in its state."""
        with self._tables.begun() as connection:
            return self._move(connection, run, event, reason)

    def enter(self, run: str, name: str) -> Step:
        """A driver is at this step, for the first time or again. Raises Conflict where the run is not running."""
        with self._tables.begun() as connection:
            self._require_running(connection, run)
            where = (STEPS.c.run == run, STEPS.c.name == name)
            row = connection.execute(select(STEPS).where(*where)).one()._asdict()
            began = row["began"] if row["began"] is not None else self._clock()
            connection.execute(
                update(STEPS).where(*where).values(state=ACTIVE, began=began, ended=None, attempts=row["attempts"] + 1)
            )
            return _step(row)

    def tell(self, run: str, name: str, share: float, note: str) -> bool:
        """How far a step is; whether its run is still running."""
        where = (STEPS.c.run == run, STEPS.c.name == name, STEPS.c.state == ACTIVE)
        with self._tables.begun() as connection:
            connection.execute(update(STEPS).where(*where).values(share=share, note=note[:500]))
            at = connection.execute(select(RUNS.c.state).where(RUNS.c.id == run)).scalar()
            return at == State.RUNNING.value

    def keep(self, run: str, name: str, made: Mapping[str, Any]) -> None:
        """What a step needs to go on if its driver ends now. Raises Conflict where the run is not running."""
        with self._tables.begun() as connection:
            self._require_running(connection, run)
            where = (STEPS.c.run == run, STEPS.c.name == name)
            there = json.loads(connection.execute(select(STEPS.c.made).where(*where)).scalar_one())
            connection.execute(update(STEPS).where(*where).values(made=json.dumps({**there, **made})))

    def leave(
        self, run: str, name: str, numbers: Mapping[str, float], made: Mapping[str, Any], note: str,
        event: Event | None = None, reason: str = "",
    ) -> None:  # fmt: skip
        """A step is over, once, and with it the run where `event` says so.

        Raises Conflict where the step is not under way or the run was ended meanwhile; then nothing is kept.
        """
        with self._tables.begun() as connection:
            self._require_running(connection, run)
            where = (STEPS.c.run == run, STEPS.c.name == name)
            there = json.loads(connection.execute(select(STEPS.c.made).where(*where)).scalar_one())
            done = update(STEPS).where(*where, STEPS.c.state == ACTIVE).values(
                state=OVER, ended=self._clock(), share=1.0, note=note[:500], numbers=json.dumps(dict(numbers)),
                made=json.dumps({**there, **made}),
            )  # fmt: skip
            if connection.execute(done).rowcount != 1:
                raise Conflict(f"the step {name} of run {run}", ACTIVE, "over")
            if event is not None:
                self._move(connection, run, event, reason)

    def busy(self, pipeline: str) -> bool:
        """Whether a run of it is under way."""
        return bool(self.all(1, UNDER_WAY, pipeline))

    def done(self) -> dict[str, str]:
        """The last run of each pipeline that is done."""
        latest = select(RUNS.c.pipeline, func.max(RUNS.c.number)).where(RUNS.c.state == State.DONE.value)
        with self._tables.begun() as connection:
            return {name: f"{name}-{number}" for name, number in connection.execute(latest.group_by(RUNS.c.pipeline))}

    def _move(self, connection: Connection, run: str, event: Event, reason: str) -> State:
        at = connection.execute(select(RUNS.c.state).where(RUNS.c.id == run)).scalar()
        if at is None:
            raise NotFound("run", run)
        then = moved(run, State(at), event)
        values: dict[str, Any] = {"state": then.value, "reason": reason}
        values["ended"] = None if then in UNDER_WAY else self._clock()
        changed = connection.execute(update(RUNS).where(RUNS.c.id == run, RUNS.c.state == at).values(**values))
        if changed.rowcount != 1:
            raise Conflict(f"run {run}", at, "another already")
        if then.value in CUT:
            cut = update(STEPS).where(STEPS.c.run == run, STEPS.c.state == ACTIVE)
            connection.execute(cut.values(state=then.value, ended=values["ended"]))
        return then

    @staticmethod
    def _require_running(connection: Connection, run: str) -> None:
        """And have no other move it before this transaction ends: the write locks its row, in SQLite the database."""
        running = (RUNS.c.id == run, RUNS.c.state == State.RUNNING.value)
        if connection.execute(update(RUNS).where(*running).values(state=State.RUNNING.value)).rowcount != 1:
            at = connection.execute(select(RUNS.c.state).where(RUNS.c.id == run)).scalar()
            raise Conflict(f"run {run}", State.RUNNING.value, str(at))


def _run(connection: Connection, row: Mapping[str, Any]) -> Run:
    steps = connection.execute(select(STEPS).where(STEPS.c.run == row["id"]).order_by(STEPS.c.place)).all()
    return Run(
        row["id"], row["pipeline"], row["model"], State(row["state"]), row["why"], row["by"], row["request"],
        json.loads(row["declared"]), row["reason"], row["created"], row["ended"], row["job"],
        tuple(_step(step._asdict()) for step in steps),
    )  # fmt: skip


def _step(row: Mapping[str, Any]) -> Step:
    return Step(
        row["name"], row["state"], row["began"], row["ended"], row["attempts"], row["share"], row["note"],
        json.loads(row["numbers"]), json.loads(row["made"]),
    )  # fmt: skip
