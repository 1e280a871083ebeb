"""A rollout: from one version to another in steps, and back by itself where the new one is proven to be worse.

One table of states and moves, and one function from what there is, what was seen and what time it is to what there is
next. Knows no gateway, no file and no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from cluster.errors import Conflict
from pipelines.routing.evidence import Arm, Score
from pipelines.routing.settings import STEPS, WHOLE
from pipelines.routing.verdict import ALPHA, SCORES, Finding, Rule, guards, judge, kept
from pipelines.routing.verdict import State as Found


class State(StrEnum):
    """Where a rollout is. `promoted` and `rolled back` are the ends."""

    PENDING = "pending"  # until the new version is warm; it has no users
    RAMPING = "ramping"  # at a step, for as long as the step takes
    HOLDING = "holding"  # the step's time is over and the evidence does not do
    PAUSED = "paused"  # by a person; still taken back where it is proven to be worse
    PROMOTING = "promoting"  # all users are the new version's; not every gateway knows yet
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling back"  # no user is the new version's; not every gateway knows yet
    ROLLED_BACK = "rolled back"


class Event(StrEnum):
    """What happens to a rollout; the last four are what people say."""

    WARM = "warm"
    LATE = "late"  # it did not become warm in time
    GOOD = "good"  # the step's time is over, nothing looks broken, answers enough
    SHORT = "short"  # the step's time is over, and something looks broken or answers are too few
    BROKEN = "broken"  # a rule is proven to be
    LOST = "lost"  # no replica of the new version is left
    TOLD = "told"  # every gateway knows
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    PROMOTE = "promote"


MOVES: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.WARM): State.RAMPING,
    (State.PENDING, Event.LATE): State.ROLLING_BACK,
    (State.RAMPING, Event.GOOD): State.RAMPING,  # the next step; after the last one it is PROMOTING
    (State.RAMPING, Event.SHORT): State.HOLDING,
    (State.HOLDING, Event.GOOD): State.RAMPING,
    (State.PAUSED, Event.RESUME): State.RAMPING,
    (State.PROMOTING, Event.TOLD): State.PROMOTED,
    (State.ROLLING_BACK, Event.TOLD): State.ROLLED_BACK,
    **{(at, Event.PAUSE): State.PAUSED for at in (State.RAMPING, State.HOLDING)},
    **{
        (at, event): State.ROLLING_BACK
        for at in (State.RAMPING, State.HOLDING, State.PAUSED)
        for event in (Event.BROKEN, Event.LOST)
    },
    **{(at, Event.PROMOTE): State.PROMOTING for at in (State.RAMPING, State.HOLDING, State.PAUSED)},
    **{
        (at, Event.ABORT): State.ROLLING_BACK
        for at in (State.PENDING, State.RAMPING, State.HOLDING, State.PAUSED, State.PROMOTING)
    },
}
COMMANDS = (Event.PAUSE, Event.RESUME, Event.ABORT, Event.PROMOTE)
ENDS = (State.PROMOTED, State.ROLLED_BACK)
AT_A_STEP = (State.RAMPING, State.HOLDING, State.PAUSED)


@dataclass(frozen=True, slots=True)
class Terms:
    """What was asked for. `steps`: percent of the old version's users, growing; `abort_if` as people write it."""

    model: str
    old: str
    new: str
    steps: tuple[float, ...] = STEPS
    every_seconds: float = 600.0
    abort_if: tuple[str, ...] = ()
    margin: float | None = 0.2  # of slowness that is let pass; None: only what `abort_if` says counts
    answers: int = 50  # of the new version, at least, before a step is over
    mirror: float | None = None  # percent of the requests that the new version is asked, too, unseen
    evals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by name: its digest, how many questions
    warm_seconds: float = 600.0
    lost_seconds: float = 10.0
    alpha: float = ALPHA

    @property
    def rules(self) -> tuple[Rule, ...]:
        own = tuple(map(kept, self.abort_if))
        return own if self.margin is None else own + guards(self.margin)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What JSON kept; fields that this code does not know are left out."""
        known = {one.name for one in fields(cls)}
        kept: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**{name: value for name, value in kept.items() if name in known})


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout. `step` counts from 0; `entered`: since when it is at this step, or in this state before or after.

    Of a step that was paused, `entered` is as much later as it was paused: `paused` is since when, while it is.
    """

    name: str
    terms: Terms
    state: State = State.PENDING
    step: int = 0
    entered: float = 0.0
    paused: float | None = None
    began: float = 0.0
    ended: float | None = None
    reason: str = ""
    by: str = ""
    cause: str = ""  # what made it begin by itself, such as the merge request !3
    owes: bool = False  # the registry is to be told of its end
    canary: bool = False  # the registry has been told of its beginning
    before: Mapping[str, float] = field(default_factory=dict)  # the weights when it began

    @property
    def share(self) -> float:
        """Percent of the old version's users that the new one has."""
        if self.state in AT_A_STEP:
            return self.terms.steps[self.step]
        return WHOLE if self.state in (State.PROMOTING, State.PROMOTED) else 0.0

    @property
    def over(self) -> bool:
        return self.state in ENDS

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain` gave, perhaps by way of JSON."""
        kept = {**plain, "terms": Terms.of(plain["terms"]), "state": State(plain["state"])}
        return cls(**{one.name: kept[one.name] for one in fields(cls) if one.name in kept})


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to decide by. `warm`: every gateway has a replica of the new version; `told`: every gateway uses
    the shares that the rollout asks for; `lost`: seconds that nobody has had one; the answers of this step.
    """

    warm: bool = False
    told: bool = False
    lost: float = 0.0
    new: Arm = field(default_factory=Arm)
    old: Arm = field(default_factory=Arm)


@dataclass(frozen=True, slots=True)
class Record:
    """What has happened and why, with its numbers: a line of the audit."""

    event: Event
    was: State
    now: State
    share: float
    reason: str
    findings: tuple[str, ...] = ()
    answers: int = 0
    beside: int = 0


def decide(rollout: Rollout, seen: Seen, now: float) -> tuple[Rollout, tuple[Record, ...]]:
    """What becomes of it, and what is to be kept of that; nothing where all stays as it is."""
    event, reason, findings = _event(rollout, seen, now)
    if event is None:
        return rollout, ()
    return moved(rollout, event, reason, now, findings, seen)


def command(
    rollout: Rollout, event: Event, by: str, now: float, seen: Seen | None = None
) -> tuple[Rollout, tuple[Record, ...]]:
    """What a person says, kept with what there was to say it by. Raises Conflict where its state does not allow it."""
    if (rollout.state, event) not in MOVES:
        able = [one for one in COMMANDS if (rollout.state, one) in MOVES]
        raise Conflict(
            f"rollout {rollout.name}",
            f"one to {event}" + (f" (it takes {', '.join(able)})" if able else ""),
            rollout.state,
        )
    found = findings(rollout, seen) if seen and rollout.share else ()
    return moved(rollout, event, f"{by} said {event}", now, found, seen)


def moved(
    rollout: Rollout, event: Event, reason: str, now: float, findings: Sequence[Finding] = (), seen: Seen | None = None
) -> tuple[Rollout, tuple[Record, ...]]:
    """The move that the table has for it."""
    state, step, entered = MOVES[rollout.state, event], rollout.step, now
    if event is Event.GOOD:
        step += 1
        if step == len(rollout.terms.steps):
            state, step = State.PROMOTING, step - 1
    elif state in (State.HOLDING, State.PAUSED):
        entered = rollout.entered  # it has been at this step since then
    elif event is Event.RESUME:
        entered = rollout.entered + (now - rollout.paused if rollout.paused is not None else 0.0)
    paused = now if state is State.PAUSED else None
    ended = now if state in ENDS else None
    kept = rollout.reason if event is Event.TOLD else reason
    after = replace(rollout, state=state, step=step, entered=entered, paused=paused, ended=ended, reason=kept)
    told = tuple(map(str, findings))
    counted = (seen.new.answers, seen.old.answers) if seen else (0, 0)
    return after, (Record(event, rollout.state, state, after.share, reason, told, *counted),)


def findings(rollout: Rollout, seen: Seen) -> list[Finding]:
    """What each rule of its step comes to."""
    terms = rollout.terms
    return judge(terms.rules, seen.new, seen.old, terms.alpha / len(terms.steps))


Happening = tuple[Event | None, str, Sequence[Finding]]
_NOTHING: Happening = (None, "", ())


def _event(rollout: Rollout, seen: Seen, now: float) -> Happening:
    if rollout.state is State.PENDING:
        return _before(rollout, seen, now)
    if rollout.state in AT_A_STEP:
        return _at_a_step(rollout, seen, now)
    if seen.told and not rollout.over:
        return Event.TOLD, "every gateway knows", ()
    return _NOTHING


def _before(rollout: Rollout, seen: Seen, now: float) -> Happening:
    terms = rollout.terms
    if seen.warm:
        return Event.WARM, f"{terms.new} is warm", ()
    if now - rollout.entered > terms.warm_seconds:
        return Event.LATE, f"{terms.new} was not warm within {terms.warm_seconds:g} s", ()
    return _NOTHING


def _at_a_step(rollout: Rollout, seen: Seen, now: float) -> Happening:
    terms = rollout.terms
    found = findings(rollout, seen)
    if seen.lost > terms.lost_seconds:
        return Event.LOST, f"no replica of {terms.new} was left for {seen.lost:.0f} s", found
    if broken := _told(found, Found.BROKEN):
        return Event.BROKEN, "; ".join(broken), found
    if rollout.state is State.PAUSED or now - rollout.entered < terms.every_seconds:
        return _NOTHING
    lacks = _told(found, Found.DOUBTFUL)
    lacks = [*_unasked(terms, seen), *lacks, *_unheard(terms, found, whole=rollout.share == WHOLE)]
    if seen.new.answers < terms.answers:
        lacks.insert(0, f"{seen.new.answers} answers of {terms.answers}")
    if not lacks:
        return Event.GOOD, f"{seen.new.answers} answers and no rule looks broken", found
    return (Event.SHORT, "; ".join(lacks), found) if rollout.state is State.RAMPING else _NOTHING


def _unasked(terms: Terms, seen: Seen) -> list[str]:
    """The sets of questions that one of the two has not been asked to the end."""
    asked = {
        name: min(arm.scores.get(f"eval.{name}", Score()).count for arm in (seen.new, seen.old)) for name in terms.evals
    }
    return [
        f"eval.{name}: {count} of {terms.evals[name]['questions']} questions asked"
        for name, count in asked.items()
        if count < terms.evals[name]["questions"]
    ]


def _unheard(terms: Terms, found: Sequence[Finding], *, whole: bool) -> list[str]:
    """The rules about what users and mirrors say of which nothing has been said: they guard nothing so far.

    Where the new version has all users no answer beside theirs comes: what takes one was judged at the steps before.
    """
    return [
        str(each)
        for asked, each in zip(terms.rules, found, strict=True)
        if each.state is Found.UNKNOWN
        and SCORES.fullmatch(each.metric)
        and each.metric.removeprefix("eval.") not in terms.evals
        and not (whole and asked.beside)
    ]


def _told(findings: Sequence[Finding], state: Found) -> list[str]:
    return [str(each) for each in findings if each.state is state]
