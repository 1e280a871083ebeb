"""Work that copies long pieces of its question: records as JSON, and an extractive summary of a text.

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
SUMMARISE = "Summarise what the text says of {name}: {text}"


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
    """A text on three people; the answer is what it says of one of them, sentence by sentence."""
    names = [extraction.invent(dice, chinese=False)["name"] for _ in range(3)]
    told = [dice.pick(names) for _ in range(dice.whole(6, 10))]
    told[dice.whole(0, len(told) - 1)] = names[0]
    templates = [dice.pick(extraction.ENGLISH)[0] for _ in told]
    said = [
        template.format(**extraction.invent(dice, chinese=False) | {"name": name})
        for name, template in zip(told, templates, strict=True)
    ]
    answer = " ".join(sentence for name, sentence in zip(told, said, strict=True) if name == names[0])
    return ("user", SUMMARISE.format(name=names[0], text=" ".join(said))), ("assistant", answer)


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
