"""Random JSON schemas whose values are short, so that a model that draws at random comes to an end."""

from random import Random
from typing import Any

WORDS = ("a", "name", 'qu"ote', "naïve", "中文", "with space", "back\\slash", "_x1")


def schema(dice: Random, depth: int = 0) -> dict[str, Any]:
    """A schema of any kind; objects and arrays stand outside, texts and numbers inside."""
    kinds = [text, number, choice, nothing] if depth >= 3 else [text, number, choice, items, members, members, either]
    if depth == 0:
        kinds = [members, items, members]
    return dice.choice(kinds)(dice, depth)


def text(dice: Random, depth: int) -> dict[str, Any]:
    made: list[dict[str, Any]] = [
        {"type": "string", "maxLength": dice.randint(0, 6)},
        {"type": "string", "pattern": "^[a-c]{1,4}(-[0-9]+x)?$"},
        {"type": "string", "format": "date"},
        {"type": "string", "minLength": 2, "maxLength": 5},
    ]
    return dice.choice(made)


def number(dice: Random, depth: int) -> dict[str, Any]:
    low = dice.randint(-50, 50)
    made: list[dict[str, Any]] = [
        {"type": "integer", "minimum": low, "maximum": low + dice.randint(0, 100)},
        {"type": "integer", "minimum": 0, "maximum": 1000, "multipleOf": dice.choice((5, 7, 10))},
        {"type": "number", "minimum": 0, "exclusiveMaximum": 10, "multipleOf": 0.25},
        {"type": "boolean"},
    ]
    return dice.choice(made)


def choice(dice: Random, depth: int) -> dict[str, Any]:
    return dice.choice([{"enum": [*dice.sample(WORDS, 2), 1, None, True]}, {"const": dice.choice(WORDS)}])


def nothing(dice: Random, depth: int) -> dict[str, Any]:
    return {"type": "null"}


def items(dice: Random, depth: int) -> dict[str, Any]:
    low = dice.randint(0, 2)
    bounds = {"minItems": low, "maxItems": low + dice.randint(0, 2)}
    return {"type": "array", "items": schema(dice, depth + 1)} | bounds


def members(dice: Random, depth: int) -> dict[str, Any]:
    names = dice.sample(WORDS, dice.randint(1, 3))
    properties = {name: schema(dice, depth + 1) for name in names}
    required = [name for name in names if dice.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def either(dice: Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [schema(dice, depth + 1), number(dice, depth), nothing(dice, depth)]}
