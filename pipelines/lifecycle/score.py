"""Exact match: how many held-out answers are right, task by task."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.lifecycle.data.example import Example


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers of one task, and some of the wrong ones: question, expected, given."""

    task: str
    right: int
    asked: int
    wrong: tuple[tuple[str, str, str], ...] = field(default=())

    @property
    def percent(self) -> float:
        """Right answers of a hundred."""
        return 100.0 * self.right / self.asked if self.asked else 0.0


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    """One score per task in the order of the examples, then one of all together.

    An answer is right if it is the expected text, spaces around it apart.
    """
    scores = []
    for task in dict.fromkeys(example.task for example in examples):
        pairs = [(e, a) for e, a in zip(examples, answers, strict=True) if e.task == task]
        wrong = [(e.turns[-2][1], e.answer, a) for e, a in pairs if a.strip() != e.answer]
        scores.append(Score(task, len(pairs) - len(wrong), len(pairs), tuple(wrong)))
    return [*scores, Score("all", sum(s.right for s in scores), sum(s.asked for s in scores))]
