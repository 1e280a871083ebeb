"""The draft model that an assignment names, loaded on the rank that guesses.

Owns what a draft must share with the model that it guesses for: tokens with the same ids. Runs nothing in the folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from actors.engine.folder import read_text
from actors.messages import Assignment
from actors.models import load
from cluster.errors import ModelInvalid

if TYPE_CHECKING:
    from actors.models import Model


def load_draft(assignment: Assignment) -> "Model | None":
    """The draft model of this rank; None where there is none to load: only rank 0 guesses.

    Whole and on its own: ranks that each held a slice would have to meet for every guessed token.
    Raises ModelInvalid for a folder that cannot be served or that has other tokens.
    """
    if (assignment.speculation == "draft") != (assignment.draft_model is not None):
        said = f"speculation is {assignment.speculation!r} and draft_model {assignment.draft_model!r}"
        raise ModelInvalid(assignment.path, said, "speculation='draft' and a folder for draft_model go together")
    if assignment.draft_model is None or assignment.rank > 0:
        return None
    check_tokens(Path(assignment.path), Path(assignment.draft_model))
    return load(
        assignment.draft_model, dtype=assignment.dtype, kv_cache_dtype=assignment.kv_cache_dtype,
        device=assignment.device,
    )  # fmt: skip


def check_tokens(model: Path, draft: Path) -> None:
    """Raises ModelInvalid, which names both folders, unless each token has the same id in both tokenizers."""
    ours, theirs = _tokens(model), _tokens(draft)
    if ours == theirs:
        return
    remedy = "a draft model guesses token ids: take one of the same family, with the very tokenizer"
    if len(ours) != len(theirs):
        problem = f"its tokenizer has {len(theirs)} tokens and that of {model} has {len(ours)}"
    else:
        token = next(token for token in sorted(ours) if theirs.get(token) != ours[token])
        problem = f"its token {token} is {theirs.get(token)!r} and that of {model} is {ours[token]!r}"
    raise ModelInvalid(str(draft), problem, remedy)


def _tokens(folder: Path) -> dict[int, str]:
    file = folder / "tokenizer.json"
    try:
        vocabulary: dict[str, int] = Tokenizer.from_str(read_text(file)).get_vocab()
    except ModelInvalid:
        raise
    except Exception as error:  # the Rust library raises nothing narrower
        raise ModelInvalid(str(file), f"it is no tokenizer: {error}", "save the tokenizer again") from error
    return {token: text for text, token in vocabulary.items()}
