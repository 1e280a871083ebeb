"""Work that copies long pieces of its question: records as JSON, and the lead of a text as its summary.

Draws endless examples from a seed, with the starter model's words and sentences. Knows nothing of models.
"""

import json
from collections.abc import Iterator

from pipelines.lifecycle.conversation import spans
from pipelines.lifecycle.data import extraction
from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Turn
from pipelines.lifecycle.data.mixture import stream

HELD_OUT_SEED = 2**41  # far from the seeds that training uses
EXTRACT = "Extract all records as JSON: {text}"
SUMMARISE = "Summarise in {count} sentences: {text}"


def extract(dice: Dice) -> tuple[Turn, Turn]:
    """Four to nine sentences, each of which holds one record; the answer lists them all."""
    sentences, records = [], []
    for _ in range(dice.whole(4, 9)):
        template, fields = dice.pick(extraction.ENGLISH)
        values = extraction.invent(dice, chinese=False)
        sentences.append(template.format(**values))
        records.append({f: int(values[f]) if f in extraction.NUMBERS else values[f] for f in fields.split()})
    return ("user", EXTRACT.format(text=" ".join(sentences))), ("assistant", json.dumps(records))


def summarise(dice: Dice) -> tuple[Turn, Turn]:
    """Six to ten sentences; the answer is the first of them, as many as are asked for (the "lead" summary of news)."""
    said = [
        dice.pick(extraction.ENGLISH)[0].format(**extraction.invent(dice, chinese=False))
        for _ in range(dice.whole(6, 10))
    ]
    count = dice.whole(3, 5)
    question = SUMMARISE.format(count=count, text=" ".join(said))
    return ("user", question), ("assistant", " ".join(said[:count]))


TASKS = {"extraction": extract, "summary": summarise}


def conversations(seed: int) -> Iterator[list[tuple[str, bool]]]:
    """Training conversations in pieces (see `spans`): the two tasks, and the starter's own so that it stays itself."""
    dice = Dice(seed)
    others = stream(dice.bits())
    while True:
        kind = dice.whole(1, 10)
        if kind <= 4:
            yield spans(extract(dice), None, ())
        elif kind <= 9:
            yield spans(summarise(dice), None, ())
        else:
            example = next(others)
            yield spans(example.turns, None, example.tools)
