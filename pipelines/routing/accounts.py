"""What is told of rollouts: to the audit, to people, to the registry, and to who wants the same users.

Plain functions of a rollout. Knows nothing of gateways and of files.
"""

from dataclasses import asdict
from typing import Any

from cluster.errors import Barred
from pipelines.routing.arms import Arms
from pipelines.routing.rollout import Event, Record, Rollout, State

Plain = dict[str, Any]

REDEPLOYED = "a deploy changed the weights of this model, or took one of the two versions off"


def line(rollout: Rollout, record: Record | None, by: str) -> Plain:
    """A line of the audit: how one has moved, or that it has begun, where there is no record."""
    terms = rollout.terms
    told: Plain = {"rollout": rollout.name, "model": terms.model, "old": terms.old, "new": terms.new, "by": by}
    if record is None:
        return told | {"event": "start", "cause": rollout.cause, "terms": asdict(terms)}
    return told | {"step": rollout.step, **asdict(record)}


def told(rollout: Rollout, arms: Arms | None, now: float) -> Plain:
    """One as people see it; `arms`: what counts at its step."""
    counted = {"new": arms.new.answers, "old": arms.old.answers} if arms else {}
    elapsed = (rollout.ended or now) - rollout.began
    return {**rollout.plain, "share": rollout.share, "answers": counted, "seconds": round(elapsed, 3)}


def owed(rollout: Rollout) -> Plain:
    """What the registry is told of one by."""
    terms = rollout.terms
    return {
        "name": rollout.name, "model": terms.model, "old": terms.old, "new": terms.new,
        "cause": rollout.cause or f"by {rollout.by}",
        "owes": rollout.owes, "canary": rollout.canary,
        "promoted": rollout.state is State.PROMOTED, "reason": rollout.reason,
        "redeployed": rollout.reason == REDEPLOYED,
    }  # fmt: skip


def held(rollout: Rollout) -> Barred:
    """What is told who wants the users of a model that has a rollout."""
    remedy = f"wait for its end, or abort it: `strata rollout abort {rollout.name}`"
    return Barred(rollout.terms.model, f"has the rollout {rollout.name}, {rollout.state}", remedy)


def redeployed(rollout: Rollout, now: float) -> tuple[Rollout, Plain]:
    """One that a deploy has ended, and the audit's line of it."""
    over = Rollout.of({**rollout.plain, "state": State.ROLLED_BACK, "ended": now, "reason": REDEPLOYED})
    record = Record(Event.ABORT, rollout.state, State.ROLLED_BACK, 0.0, REDEPLOYED)
    return over, line(rollout, record, "the settings")
