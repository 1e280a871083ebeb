"""Two sets of named values that were one become one again, as Git does it with files.

Knows names, and values that can be compared. Knows no files, no tensors and no strategy.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


def three_way(
    bases: Sequence[Mapping[str, Value]], ours: Mapping[str, Value], theirs: Mapping[str, Value]
) -> tuple[dict[str, Value], list[str]]:
    """What stands in the merge, and the names of what both changed and not to the same; ours first, in their order.

    What one side left as it was is the other's, also where that removed it. `bases`: the latest that both come from.
    None: nothing was there. Several: what they do not agree on counts as changed on both sides.
    """
    merged: dict[str, Value] = {}
    both = []
    for name in {**ours, **theirs}:
        own, other = ours.get(name), theirs.get(name)
        before = [base.get(name) for base in bases] or [None]
        if own != other and all(was == own for was in before):
            own = other
        elif own != other and any(was != other for was in before):
            both.append(name)
            continue
        if own is not None:
            merged[name] = own
    return merged, both
