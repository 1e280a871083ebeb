"""A run of a pipeline: how far it is, and what can become of it.

Tables of states and moves, and values. Knows no store, no step's work and no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cluster.errors import Conflict


class State(StrEnum):
    """Of a run. The last five are ends, of which `failed` can be taken up again."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"  # for people, to whom its merge request belongs
    DONE = "done"
    STOPPED = "stopped"  # by its evaluation, or by people who closed its merge request
    TAKEN_BACK = "taken back"  # by its canary
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What happens to a run."""

    DRIVEN = "driven"  # a driver takes it, the first one or the next
    WAITS = "waits"
    FINISHED = "finished"
    REFUSED = "refused"
    WORSE = "worse"
    BROKE = "broke"
    CANCEL = "cancel"


MOVES: dict[tuple[State, Event], State] = {
    **{(at, Event.DRIVEN): State.RUNNING for at in (State.QUEUED, State.RUNNING, State.WAITING, State.FAILED)},
    (State.RUNNING, Event.WAITS): State.WAITING,
    (State.RUNNING, Event.FINISHED): State.DONE,
    (State.RUNNING, Event.REFUSED): State.STOPPED,
    (State.RUNNING, Event.WORSE): State.TAKEN_BACK,
    **{(at, Event.BROKE): State.FAILED for at in (State.QUEUED, State.RUNNING)},
    **{
        (at, Event.CANCEL): State.CANCELLED
        for at in (State.QUEUED, State.RUNNING, State.WAITING, State.FAILED)
    },
}  # fmt: skip
UNDER_WAY = (State.QUEUED, State.RUNNING, State.WAITING)
PENDING, ACTIVE, OVER, LEFT = "pending", "running", "done", "left out"  # of a step
CUT = (State.FAILED.value, State.CANCELLED.value)  # of the step at which its run ended so
_BRANCH = "run-"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `share` of it is done, from 0 to 1, as `note` says; times in seconds since 1970.

    `numbers` and `made` (versions, folders, names) are what came of it; `made` also what it needs to go on.
    """

    name: str
    state: str = PENDING
    began: float | None = None
    ended: float | None = None
    attempts: int = 0
    share: float = 0.0
    note: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `declared`: its pipeline as it was when the run began. `job`: its last Ray job."""

    id: str
    pipeline: str
    model: str
    state: State
    why: str
    by: str
    request: int | None
    declared: Mapping[str, Any]
    reason: str
    created: float
    ended: float | None
    job: str
    steps: tuple[Step, ...] = ()

    @property
    def branch(self) -> str:
        """Where its candidate is pushed to."""
        return branch(self.id)

    def step(self, name: str) -> Step:
        """One by its name; where the run has none of it, one that nothing came of."""
        return next((each for each in self.steps if each.name == name), Step(name))

    def made(self, key: str) -> Any:
        """What the last step that made a `key` made; None where none did."""
        return next((each.made[key] for each in reversed(self.steps) if key in each.made), None)


def moved(run: str, at: State, event: Event) -> State:
    """Where `event` leads. Raises Conflict where it cannot happen."""
    then = MOVES.get((at, event))
    if then is None:
        ways = " or ".join(state for (state, happens) in MOVES if happens is event)
        raise Conflict(f"run {run}", ways, at.value)
    return then


def upcoming(steps: Sequence[Step]) -> Step | None:
    """The step that a driver has to do next: the first that is not over; None where all are."""
    return next((step for step in steps if step.state not in (OVER, LEFT)), None)


def waits(run: str, number: int, missing: Sequence[str]) -> str:
    """What a run waits for whose merge request lacks `missing`, or lacks nothing any more, and what goes on with it."""
    if missing:
        return f"merge request !{number} needs {'; '.join(missing)}. Once that is seen to, {goes_on(run)}"
    return f"merge request !{number} waits for nobody any more: {goes_on(run)}"


def goes_on(run: str) -> str:
    """Who takes up a run that nobody drives."""
    return f"`strata runs resume {run}` goes on, or a watch by itself"


def branch(run: str) -> str:
    """The branch of a run, by which its merge requests are known."""
    return f"{_BRANCH}{run}"


def run_of(branch: str) -> str:
    """The run whose branch this would be, if it is known: people may call theirs alike. Empty where it is none's."""
    return branch.removeprefix(_BRANCH) if branch.startswith(_BRANCH) else ""


def progress(run: Run) -> float:
    """How much of it is done, its steps counted alike, from 0 to 1."""
    if not run.steps:
        return 0.0
    return sum(1.0 if step.state in (OVER, LEFT) else step.share for step in run.steps) / len(run.steps)
