"""Merge requests: what is to go where, who said what of it, what was measured, and when that suffices.

A life cycle as a table, and values that say what happened. Knows no store and no weights.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from actors.registry import words
from cluster.condition import METRIC, Condition
from cluster.errors import Conflict, InvalidRequest, ModelInvalid, sent


class State(StrEnum):
    """Of a merge request."""

    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


MOVES = {
    (State.OPEN, "reviewed"): State.OPEN,
    (State.OPEN, "evaluated"): State.OPEN,
    (State.OPEN, "merged"): State.MERGED,
    (State.OPEN, "closed"): State.CLOSED,
    (State.CLOSED, "reopened"): State.OPEN,
}


@dataclass(frozen=True, slots=True)
class Review:
    """What `principal` thinks of the version `commit`."""

    principal: str
    commit: str
    approves: bool
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of the version `commit`, by name."""

    commit: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """The branch `source` is to go into the branch `target`."""

    title: str
    source: str
    target: str
    author: str
    strategy: str = "clean"
    weight: float = 0.5
    state: State = State.OPEN
    reviews: tuple[Review, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    merged_as: str = ""

    def moved(self, event: str, **changes: Any) -> "MergeRequest":
        """After `event`. Raises Conflict where it cannot happen now."""
        then = MOVES.get((self.state, event))
        if then is None:
            ways = [state.value for (state, name) in MOVES if name == event]
            raise Conflict("the merge request", " or ".join(ways), self.state.value)
        return replace(self, state=then, **changes)

    def reviewed(self, review: Review) -> "MergeRequest":
        """With one more review; of one person and version the last counts. Raises InvalidRequest and Conflict."""
        if review.approves and review.principal == self.author:
            raise InvalidRequest("principal", review.principal, "somebody else than who opened it has to approve it")
        words.checked("comment", review.comment)
        others = [old for old in self.reviews if (old.principal, old.commit) != (review.principal, review.commit)]
        return self.moved("reviewed", reviews=(*others, review))

    def evaluated(self, evaluation: Evaluation) -> "MergeRequest":
        """With one more evaluation; of one version a later figure replaces an earlier one. Raises Conflict."""
        before = self.metrics(evaluation.commit)
        whole = Evaluation(evaluation.commit, {**before, **evaluation.metrics})
        others = [old for old in self.evaluations if old.commit != evaluation.commit]
        return self.moved("evaluated", evaluations=(*others, whole))

    def metrics(self, commit: str) -> Mapping[str, float]:
        """What was measured of a version."""
        return next((each.metrics for each in self.evaluations if each.commit == commit), {})

    def text(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a merge wants: so many approvals of the very version, and conditions that its metrics have to meet."""

    approvals: int = 1
    conditions: tuple[Condition, ...] = ()

    def missing(self, request: MergeRequest, source: str, target: str) -> list[str]:
        """What keeps `request` from being merged while its branches are at these versions, a line each."""
        now = [review for review in request.reviews if review.commit == source]
        against = sorted({review.principal for review in now if not review.approves})
        found = [f"{principal} is against it" for principal in against]
        count = len({review.principal for review in now if review.approves})
        if count < self.approvals:
            stale = len(request.reviews) - len(now)
            hint = f", and {stale} are of a version that the branch was at before" if stale else ""
            more = "1 more approval" if self.approvals - count == 1 else f"{self.approvals - count} more approvals"
            found.append(f"{more} of {source[:12]} (it has {count} of {self.approvals}{hint})")
        for condition in self.conditions:
            held = condition.holds(request.metrics(source), request.metrics(target))
            if held is None:
                whose = "both versions" if condition.baseline else "the source"
                found.append(f"no figure for {condition}; evaluate {whose}")
            elif not held:
                found.append(f"{condition} does not hold: it is {request.metrics(source)[condition.metric]:g}")
        return found


def opened(title: str, source: str, target: str, author: str, strategy: str, weight: float) -> MergeRequest:
    """A new one. Raises InvalidRequest."""
    if source == target:
        raise InvalidRequest("source", source, "a branch cannot go into itself; name two")
    if not title.strip():
        raise InvalidRequest("title", title, "say what it is about")
    return MergeRequest(words.checked("title", title), source, target, author, strategy, weight)


def parse(text: bytes) -> MergeRequest:
    """`MergeRequest.text` again. Raises ModelInvalid, as a repository may come from somewhere else."""
    try:
        found = json.loads(text)
        reviews = tuple(Review(**each) for each in found.pop("reviews"))
        evaluations = tuple(
            Evaluation(str(each["commit"]), _numbers(each["metrics"])) for each in found.pop("evaluations")
        )
        return MergeRequest(**found | {"state": State(found["state"]), "reviews": reviews, "evaluations": evaluations})
    except (ValueError, KeyError, TypeError, AttributeError, InvalidRequest) as wrong:
        raise ModelInvalid("the merge request", f"cannot be read ({wrong})", "open it again") from None


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as numbers, by names that a condition can say. Raises InvalidRequest."""
    for name in metrics:
        if not METRIC.fullmatch(str(name)):
            remedy = "name it as conditions do, with a-z, 0-9, _ and dots between, such as eval.exact_match"
            raise InvalidRequest("metrics", sent(name), remedy)
    return _numbers(metrics)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidRequest(f"metrics.{name}", sent(value), "give a finite number")
        found[str(name)] = float(value)
    return found


def summary(requests: Sequence[tuple[int, MergeRequest]]) -> list[tuple[str, str, str, str, str]]:
    """Number, state, where from and to, who, what: of each, the latest first."""
    return [
        (f"!{number}", each.state.value, f"{each.source} into {each.target}", each.author, each.title)
        for number, each in sorted(requests, key=lambda pair: -pair[0])
    ]
