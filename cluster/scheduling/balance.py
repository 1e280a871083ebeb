"""Which replica takes the next sequence. Numbers in, a name out."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One live replica. `queued` is what it reported or what this gateway has under way there, whichever is more."""

    name: str
    queued: int
    kv_used: float


def pick(candidates: Sequence[Candidate], roll: int) -> str:
    """Of two chosen by `roll`, the one with less to do (the power of two choices, Mitzenmacher 2001).

    `candidates` is not empty; `roll` is a random whole number.
    """
    left = candidates[roll % len(candidates)]
    right = candidates[roll // len(candidates) % len(candidates)]
    return min(left, right, key=lambda candidate: (candidate.queued, candidate.kv_used)).name
