"""What became of a tokenizer's entries: how many tokens and merges came, went, or have another number.

Knows the `tokenizer.json` of Hugging Face's tokenizers: a vocabulary by token (BPE, WordPiece) or in order (Unigram),
tokens added beside it, merges. Knows no store.
"""

import json
from collections.abc import Hashable, Mapping
from typing import Any

NAME = "tokenizer.json"
MOST = 128 << 20  # bytes: the largest there are, of vocabularies of 260,000, have 35 MB

Counts = tuple[int, int, int]  # added, removed, changed


def compared(before: bytes, after: bytes) -> dict[str, Counts] | None:
    """By part, what is not as it was; None where one of the two is no tokenizer that this can read."""
    try:
        old, new = (_parts(json.loads(text)) for text in (before, after))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    found = {part: _counts(old[part], new[part]) for part in new}
    return {part: counts for part, counts in found.items() if any(counts)}


def _parts(tokenizer: Mapping[str, Any]) -> dict[str, dict[Hashable, Any]]:
    model = tokenizer["model"]
    vocabulary, added, merges = model["vocab"], tokenizer.get("added_tokens") or (), model.get("merges") or ()
    if not isinstance(vocabulary, dict):
        vocabulary = {token: (number, score) for number, (token, score) in enumerate(vocabulary)}
    return {
        "tokens": dict(vocabulary),
        "added tokens": {token["content"]: token for token in added},
        "merges": {(each if isinstance(each, str) else " ".join(each)): None for each in merges},  # both are written
    }


def _counts(old: Mapping[Hashable, Any], new: Mapping[Hashable, Any]) -> Counts:
    changed = sum(old[each] != new[each] for each in old.keys() & new.keys())
    return len(new.keys() - old.keys()), len(old.keys() - new.keys()), changed
