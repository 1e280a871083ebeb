"""Chance that stays the same for ever.

Splitmix64 in plain integers: no dependence on Python's version, hash seed or locale, so that a seed means the same
data on every machine. Knows nothing of tasks.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
MASK = 2**64 - 1


class Dice:
    """A stream of choices drawn from a seed (Steele, Lea, Flood: Fast splittable pseudorandom number generators)."""

    def __init__(self, seed: int) -> None:
        self.state = seed & MASK

    def bits(self) -> int:
        """The next 64 bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.bits() % (high - low + 1)

    def pick(self, things: Sequence[T]) -> T:
        """One of `things`."""
        return things[self.bits() % len(things)]

    def sample(self, things: Sequence[T], count: int) -> list[T]:
        """`count` of `things` in random order, none twice."""
        rest = list(things)
        return [rest.pop(self.bits() % len(rest)) for _ in range(count)]

    def chance(self, percent: int) -> bool:
        """Yes, `percent` times in a hundred."""
        return self.bits() % 100 < percent


def listed(text: str) -> tuple[str, ...]:
    """The words of a line, for tables that read better as lines."""
    return tuple(text.split())


def digest(text: str) -> int:
    """A whole number of 32 bits that only `text` decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
