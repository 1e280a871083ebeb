"""What a version is asked, and how many of the answers are right: the sets that rollouts ask, and multiple choice.

A line of a set is as `routing.cases` has it, or `{"prompt": ..., "choices": [...], "answer": ...}` as lm-eval's tasks
have it, where the model has to find the answer (one of the choices, or its place) the likeliest. Knows no model and no
engine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import condition
from cluster.errors import InvalidRequest, sent
from pipelines import evals
from pipelines.lifecycle import examples
from pipelines.lifecycle.declared import ACCURACY, EXACT
from pipelines.routing.cases import Case

LINE = 'each line is {"prompt": TEXT, "answer": TEXT}, or {"prompt": TEXT, "choices": [TEXT, ...], "answer": PLACE}'
SHOWN = 5  # wrong answers that are kept


@dataclass(frozen=True, slots=True)
class Choice:
    """A question whose answer is the choice at the place `right`."""

    messages: tuple[Mapping[str, str], ...]
    choices: tuple[str, ...]
    right: int


Questions = Sequence[Case] | Sequence[Choice]


def read(source: str, field: str) -> Questions:
    """The questions of a set: of a JSONL file, or `held-out`. Raises InvalidRequest with file and line."""
    if source == evals.HELD_OUT:
        return evals.cases_of(source).cases
    rows = list(examples.lines(Path(source), field))
    chosen = ["choices" in row for _, row in rows]
    if any(chosen) and not all(chosen):
        raise InvalidRequest(field, source, "some lines have choices and some have none; make two sets of it")
    return [_choice(row, where) for where, row in rows] if any(chosen) else evals.cases_of(source).cases


def digest(source: str, field: str) -> str:
    """Of what a set holds. Raises InvalidRequest where there is nothing."""
    return evals.cases_of(source).digest if source == evals.HELD_OUT else examples.digest(Path(source), field)


def kind(questions: Questions) -> str:
    """What the share of right answers is called."""
    return ACCURACY if isinstance(questions[0], Choice) else EXACT


def metrics(sets: Mapping[str, Questions]) -> list[str]:
    """The names of what these sets measure: of each, and of all that are alike together."""
    kinds = {name: kind(questions) for name, questions in sets.items()}
    return sorted({*(f"{name}.{each}" for name, each in kinds.items()), *kinds.values()})


def score(right: Mapping[str, Sequence[bool]], sets: Mapping[str, Questions]) -> dict[str, float]:
    """The metrics, from which questions of each set were answered right."""
    found: dict[str, float] = {}
    together: dict[str, list[bool]] = {}
    for name, questions in sets.items():
        found[f"{name}.{kind(questions)}"] = share(right[name])
        together.setdefault(kind(questions), []).extend(right[name])
    return found | {name: share(each) for name, each in together.items()}


def share(right: Iterable[bool]) -> float:
    """How many of them, of 1."""
    listed = list(right)
    return sum(listed) / len(listed)


def rules(texts: Sequence[str], known: Sequence[str]) -> list[condition.Condition]:
    """Requirements as conditions on `known` metrics; `eval.` before a name is as merge requests have it.

    Raises InvalidRequest for a rule that names no metric, with those that there are.
    """
    return [
        condition.parse(text.strip().removeprefix("eval."), f"evaluate.require[{place}]", known)
        for place, text in enumerate(texts)
    ]


def verdict(
    wanted: Sequence[condition.Condition], mine: Mapping[str, float], baseline: Mapping[str, float] | None, live: str
) -> tuple[list[str], list[str]]:
    """What does not hold, and what could not be asked as there is no version `live` yet: a line each."""
    broken, unasked = [], []
    for each in wanted:
        held = each.holds(mine, baseline)
        if held is None:
            unasked.append(f"{each} was not asked: there is no {live} to compare with")
        elif not held:
            beside = f", {live} has {baseline[each.metric]:.4g}" if each.baseline and baseline else ""
            broken.append(f"{each} does not hold: it is {mine[each.metric]:.4g}{beside}")
    return broken, unasked


def _choice(row: Mapping[str, Any], where: str) -> Choice:
    prompt, answer, choices = row.get("prompt"), row.get("answer"), row["choices"]
    messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else row.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(examples.said, messages)):
        raise InvalidRequest(where, "no prompt", LINE)
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        raise InvalidRequest(where, "no choices", "give two texts or more to choose from")
    place = choices.index(answer) if isinstance(answer, str) and answer in choices else answer
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(choices):
        raise InvalidRequest(where, sent(answer), f"it is one of the choices, or a place from 0 to {len(choices) - 1}")
    return Choice(tuple(messages), tuple(choices), place)
