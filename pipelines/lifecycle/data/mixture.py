"""All tasks together: an endless stream to train on and the held-out set to score.

Owns how often each task comes up. The stream is a function of the seed alone.
"""

from collections.abc import Callable, Iterator

from pipelines.lifecycle.data import (
    about,
    arithmetic,
    classification,
    dates,
    dialogue,
    extraction,
    refusals,
    smalltalk,
    tools,
    units,
)
from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, wording

# task, how many of a hundred examples, how they are drawn
TASKS: tuple[tuple[str, int, Callable[[Dice], Example]], ...] = (
    ("arithmetic", 22, arithmetic.draw),
    ("units", 10, units.draw),
    ("dates", 4, dates.draw),
    ("extraction", 13, extraction.draw),
    ("classification", 5, classification.draw),
    ("tools", 19, tools.draw),
    ("about", 9, about.draw),
    ("refusals", 4, refusals.draw),
    ("smalltalk", 4, smalltalk.draw),
    ("dialogue", 10, dialogue.draw),
)
NAMES = tuple(name for name, _, _ in TASKS)
DRAWS = tuple(draw for _, share, draw in TASKS for _ in range(share))
HELD_OUT_SEED = 2**40  # far from the seeds that training uses
SYSTEMS = (
    "You are a helpful assistant.", "You are Strata's starter model.", "Answer briefly.", "You are a small assistant.",
    "你是一个有用的助手。", "请简短回答。", "你是 Strata 入门模型。",
)  # fmt: skip


def stream(seed: int) -> Iterator[Example]:
    """Training examples without end, none of them held out."""
    dice = Dice(seed)
    while True:
        example = dice.pick(DRAWS)(dice)
        if example.trainable:
            yield example


def system(dice: Dice) -> str | None:
    """What stands in the system turn: mostly nothing."""
    return dice.pick(SYSTEMS) if dice.chance(15) else None


def held_out_set(per_task: int = 100, seed: int = HELD_OUT_SEED) -> list[Example]:
    """Up to `per_task` examples of each task whose instances training never sees, no question twice."""
    chosen: list[Example] = []
    for name, _, draw in TASKS:
        dice, seen = Dice(seed ^ sum(name.encode())), set[str]()
        for _ in range(per_task * 400):
            example = draw(dice)
            asked = wording("|".join(content for _, content in example.turns[:-1]))
            if example.scored and asked not in seen:
                seen.add(asked)
                chosen.append(example)
            if len(seen) == per_task:
                break
    return chosen
