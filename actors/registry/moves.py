"""What is kept of an alias's moves, and the way back that they come to.

Owns the form of a move. Knows no refs: `aliases` moves, and `registry` asks whether an alias is where that left it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from cluster.errors import ModelInvalid

FILE = "move.json"


@dataclass(frozen=True, slots=True)
class Move:
    """Of an alias, between commits. `back`: to take earlier moves back, not to go on."""

    alias: str
    before: str | None
    after: str
    back: bool = False

    def text(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of a move: where the alias was, where it is, and its revision by this move and no later one."""

    was: str | None
    commit: str
    revision: str


def parse(text: bytes) -> Move:
    """`Move.text` again. Raises ModelInvalid."""
    try:
        return Move(**json.loads(text))
    except (ValueError, TypeError) as wrong:
        raise ModelInvalid("the move of an alias", f"cannot be read ({wrong})", "move it again") from None


def way(moves: Iterable[Move]) -> list[str]:
    """The commits that lead to where an alias is, the oldest first: what was taken back is not on it.

    So a rollback after a rollback goes further back, and not to what the first one left.
    """
    found: list[str] = []
    for move in moves:
        if move.back and move.after in found:
            del found[len(found) - found[::-1].index(move.after) :]
        else:
            if move.before and not found:
                found.append(move.before)  # from before its moves were kept
            found.append(move.after)
    return found
