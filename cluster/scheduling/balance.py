"""Which replica takes the next sequence: the one that is expected to begin its answer first. Numbers in, a name out.

What is to be computed before that token is counted in prompt tokens: those of its own prompt that the replica's prefix
cache lacks, those that wait there already, and for each answer under way what it takes from the steps meanwhile. How
long a prompt token takes there is measured. So a conversation stays where its prefix is, until that replica has so much
to do that computing the prefix anew elsewhere is quicker.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RUNNING = 6.0  # prompt tokens that a running answer costs one that waits: each step of the prompt computes both
PACED = 2.3  # times as long a prompt takes beside answers under way, which keep the rest of each step
LEAST = 16.0  # prompt tokens that even a request without any costs: a step, a frame, a wake-up
FULL = 0.9  # of the KV cache: beyond, what is placed there may push out what others will ask again
EVEN = 0.1  # of the least expected time by which another's may differ and still count as equal


@dataclass(frozen=True, slots=True)
class Candidate:
    """One live replica, as far as anybody knows.

    `uncached`: tokens of the prompt that it would have to compute. `queued`: prompt tokens that wait there. `rate`:
    seconds that it takes for a prompt token, in any unit that is the same for all.
    """

    name: str
    uncached: int = 0
    queued: int = 0
    running: int = 0
    kv_used: float = 0.0
    rate: float = 1.0


def work(candidate: Candidate) -> float:
    """Prompt tokens, or their like, that the replica computes before the first token of the request."""
    crowded = max(0.0, candidate.kv_used - FULL) / (1 - FULL)
    paced = PACED if candidate.running else 1.0
    return LEAST + (candidate.uncached + candidate.queued) * (paced + crowded) + RUNNING * candidate.running


def pick(candidates: Sequence[Candidate], prompt: int, roll: int) -> str:
    """The name of the best of `candidates` (not empty) for a prompt of so many tokens; `roll` is a random whole number.

    Where nobody has any of the prompt, of two chosen by `roll` the one with less to do (the power of two choices,
    Mitzenmacher 2001): what is known of others is always a little old, and all would run to the same one. Else the one
    with the least expected time, and by `roll` among those that are as good.
    """
    if all(candidate.uncached >= prompt for candidate in candidates):
        left = candidates[roll % len(candidates)]
        right = candidates[roll // len(candidates) % len(candidates)]
        return min(left, right, key=seconds).name
    least = min(map(seconds, candidates))
    even = [candidate for candidate in candidates if seconds(candidate) <= least * (1 + EVEN)]
    return even[roll % len(even)].name


def seconds(candidate: Candidate) -> float:
    """How long the first token is expected to take, in the unit of `rate`."""
    return work(candidate) * candidate.rate
