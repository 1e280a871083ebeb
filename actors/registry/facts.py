"""All that is known of a version as keys and values: what its pusher said, its config, its card, how it was judged.

Knows trees and plain values. Knows no table and no history.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from actors.registry import tree
from cluster import document

MOST_FACTS, MOST_DEPTH, MOST_LETTERS = 1000, 8, 500
CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Fact:
    """One value under a dotted key; `number` where it is one."""

    key: str
    text: str
    number: float | None = None


def of_tree(content: tree.Tree) -> list[Fact]:
    """What a version itself says: its metadata, `config.*`, `card.*`, sizes; the license where either names it."""
    metadata, card = tree.metadata(content), _card(content)
    known = {key: value for key, value in metadata.items() if key.partition(".")[0] not in tree.RESERVED}
    own = {"size": sum(tree.sizes(content).values()), "config": _plain(_config(content)), "card": card}
    if "license" in card and "license" not in known:
        own["license"] = card["license"]
    return flat(own | known)  # what is cut off where there is too much is what its pusher said


def flat(values: Mapping[str, Any]) -> list[Fact]:
    """Nested values under dotted keys, each once; of a list each element under the list's key."""
    found = dict.fromkeys(_flat("", values, 0))
    return list(found)[:MOST_FACTS]


def card_of(content: tree.Tree) -> str:
    """The text of the model card; empty where there is none."""
    return content.get(CARD, b"").decode("utf-8", "replace")


def _flat(key: str, value: Any, depth: int) -> Iterator[Fact]:
    if depth > MOST_DEPTH:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value[:MOST_FACTS]:
            yield from _flat(key, inner, depth + 1)
    elif value is not None:
        yield fact(key, value)


def fact(key: str, value: Any) -> Fact:
    """One value."""
    if isinstance(value, bool):
        return Fact(key, "true" if value else "false")
    number = None
    if isinstance(value, int | float):
        with suppress(OverflowError):
            number = float(value) if math.isfinite(value) else None
    return Fact(_storable(key), _storable(value if isinstance(value, str) else str(value)), number)


def _storable(text: str) -> str:
    """What any database takes: no zero bytes, no halves of characters, not too long for an index."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:MOST_LETTERS]


def _config(content: tree.Tree) -> dict[str, Any]:
    try:
        found = json.loads(content.get("config.json", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if isinstance(value, str | int | float)}


def _card(content: tree.Tree) -> dict[str, Any]:
    """What stands before a card's text, between lines of dashes, as the Hugging Face hub has it."""
    text = card_of(content)
    if not text.startswith("---\n"):
        return {}
    try:
        found = document.value(text[4:].partition("\n---")[0])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
