"""What a step of a rollout has gathered: the answers of both versions, and which questions were answered rightly.

Knows no gateways and no routes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.routing.evidence import Arm, Score


@dataclass(slots=True)
class Arms:
    """The answers of a rollout's step: those sent since revision `since`.

    `grades`: by version and set, the questions that were answered, and whether rightly; each counts once.
    """

    since: int
    new: Arm = field(default_factory=Arm)
    old: Arm = field(default_factory=Arm)
    grades: dict[str, dict[str, dict[int, bool]]] = field(default_factory=dict)

    def graded(self, version: str, name: str, case: int, right: bool) -> None:
        """A question was answered; the first time counts."""
        self.grades.setdefault(version, {}).setdefault(name, {}).setdefault(case, right)

    def judged(self, version: str, arm: Arm, evals: Mapping[str, Mapping[str, Any]]) -> Arm:
        """An arm with what came of its questions."""
        there = self.grades.get(version, {})
        scores = {
            f"eval.{name}": Score(len(found), sum(found.values()), int(evals[name]["questions"]))
            for name, found in there.items()
            if name in evals
        }
        return replace(arm, scores={**arm.scores, **scores}) if scores else arm

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it, and as `of` takes it."""
        grades = {
            version: {name: [[case, right] for case, right in found.items()] for name, found in sets.items()}
            for version, sets in self.grades.items()
        }
        return {"since": self.since, "new": self.new.plain, "old": self.old.plain, "grades": grades}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Arms":
        """What `plain` gave."""
        grades = {
            version: {name: {int(case): bool(right) for case, right in found} for name, found in sets.items()}
            for version, sets in plain.get("grades", {}).items()
        }
        return cls(plain["since"], Arm.of(plain["new"]), Arm.of(plain["old"]), grades)
