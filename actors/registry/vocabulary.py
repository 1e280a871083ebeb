"""What became of a tokenizer: how many tokens and merges came, went, or have another number, and which settings.

Knows the `tokenizer.json` of Hugging Face's tokenizers: a vocabulary by token (BPE, WordPiece) or in order (Unigram),
tokens added beside it, merges. Knows no store.
"""

import json
from collections.abc import Hashable, Mapping
from typing import Any

NAME = "tokenizer.json"
MOST = 128 << 20  # bytes: the largest there are, of vocabularies of 260,000, have 35 MB

SHOWN = 5  # names
SETTINGS = "settings"  # all that are no entries

Counts = tuple[int, int, int]  # added, removed, changed
Names = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # of those, the first SHOWN


def compared(before: bytes, after: bytes) -> dict[str, tuple[Counts, Names]] | None:
    """By part, what is not as it was; None where one of the two is no tokenizer that this can read."""
    try:
        old, new = (_parts(json.loads(text)) for text in (before, after))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    found = {part: _changes(old[part], new[part]) for part in new}
    return {part: (counts, names) for part, (counts, names) in found.items() if any(counts)}


def _parts(tokenizer: Mapping[str, Any]) -> dict[str, dict[Hashable, Any]]:
    model = tokenizer["model"]
    vocabulary, added, merges = model["vocab"], tokenizer.get("added_tokens") or (), model.get("merges") or ()
    if not isinstance(vocabulary, dict):
        vocabulary = {token: (number, score) for number, (token, score) in enumerate(vocabulary)}
    settings = {key: tokenizer[key] for key in tokenizer if key not in ("model", "added_tokens")}
    return {
        "tokens": dict(vocabulary),
        "added tokens": {token["content"]: token for token in added},
        "merges": {(each if isinstance(each, str) else " ".join(each)): None for each in merges},  # both are written
        SETTINGS: settings | {f"model.{key}": model[key] for key in model if key not in ("vocab", "merges")},
    }


def _changes(old: Mapping[Hashable, Any], new: Mapping[Hashable, Any]) -> tuple[Counts, Names]:
    added, removed = ([each for each in one if each not in other] for one, other in ((new, old), (old, new)))
    changed = [each for each in new if each in old and old[each] != new[each]]
    first = (tuple(str(each) for each in found[:SHOWN]) for found in (added, removed, changed))
    return (len(added), len(removed), len(changed)), (next(first), next(first), next(first))
