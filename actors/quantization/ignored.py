"""Whether `--ignore` says what its user meant: every pattern is well formed and leaves a layer of this model alone.

Knows a folder's layer names and a plan. Rounds nothing.
"""

import difflib
import re
from dataclasses import replace
from pathlib import Path

from actors.models.checkpoint import Checkpoint
from actors.quantization.writing import EMBEDDING, HEAD, PROJECTION, Plan
from cluster.errors import InvalidRequest


def check_ignored(source: Path, plan: Plan) -> None:
    """Raises InvalidRequest for a pattern without meaning or effect, and where nothing would be left to round."""
    names = [name.removesuffix(".weight") for name in Checkpoint(source).tensors if name.endswith(".weight")]
    layers = sorted(name for name in names if any(kind.match(name) for kind in (PROJECTION, EMBEDDING, HEAD)))
    if not any(map(HEAD.match, layers)) and not replace(plan, ignore=()).rounds("embed_tokens"):
        layers.append("lm_head")  # tied to an embedding that stays in floats, and so left alone as wished
    for pattern in plan.ignore:
        _well_formed(pattern)
        if not any(replace(plan, ignore=(pattern,)).ignored(layer) for layer in layers):
            # a head that is no tensor of its own is the embedding
            wanted = "embed_tokens" if HEAD.match(pattern) else pattern
            close = difflib.get_close_matches(wanted, _ends(layers), n=1, cutoff=0.0)
            raise InvalidRequest("--ignore", pattern, f"no layer of {source} is called so; the nearest is {close[0]}")
    if plan.ignore and not any(plan.rounds(layer) for layer in layers):
        raise InvalidRequest("--ignore", " ".join(plan.ignore), "it leaves nothing to round; name fewer layers")


def _well_formed(pattern: str) -> None:
    if not pattern.removeprefix("re:").strip():
        raise InvalidRequest("--ignore", f'"{pattern}"', "a part of a layer's name, or re:EXPRESSION")
    if pattern.startswith("re:"):
        try:
            re.compile(pattern[3:])
        except re.error as error:
            raise InvalidRequest(
                "--ignore", pattern, f"no regular expression: {error}; mend it or escape it"
            ) from error


def _ends(layers: list[str]) -> list[str]:
    """Layer names, from the whole to the last word: what people type is mostly an end of them."""
    parts = [layer.split(".") for layer in layers]
    return sorted({".".join(part[at:]) for part in parts for at in range(len(part)) if not part[at].isdigit()})
