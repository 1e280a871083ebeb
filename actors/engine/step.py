"""What one step computes, as the scheduler decides it and a plan carries it out.

Values only. Knows nothing of why it is so (`scheduler`) or how it is told to the ranks (`planning`).
"""

from dataclasses import dataclass

from actors.engine.blocks import Moves
from actors.engine.pace import Shape
from actors.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """`count` tokens of a sequence from `start`; `samples` when they reach its end, so that a token comes out."""

    sequence: Sequence
    start: int
    count: int
    samples: bool

    @classmethod
    def of(cls, sequence: Sequence, count: int) -> "Work":
        """The next `count` tokens of `sequence`."""
        return cls(sequence, sequence.computed, count, sequence.computed + count == len(sequence.tokens))

    @property
    def several(self) -> bool:
        """Whether it is more than a token."""
        return self.count > 1


@dataclass(frozen=True, slots=True)
class Step:
    """One decision. `grown`: block ids added to sequences that were in already. Decodes come first in `works`.

    `steps`: as often may it be repeated, since nothing is foreseen to change until then. `rooms`: tokens that each work
    may get by that; empty where it may not be repeated.
    """

    works: tuple[Work, ...]
    joined: tuple[Sequence, ...]
    left: tuple[int, ...]
    grown: tuple[tuple[int, tuple[int, ...]], ...]
    steps: int = 1
    rooms: tuple[int, ...] = ()
    saves: Moves = ()
    loads: Moves = ()
    fetching: tuple[Sequence, ...] = ()  # who gets what `loads` bring

    @property
    def shape(self) -> Shape:
        """What it computes, each time that it is repeated."""
        decodes = [work for work in self.works if work.count == 1]
        shape = Shape(len(decodes), sum(work.start + 1 for work in decodes))
        for work in self.works[len(decodes) :]:
            shape = shape.chunk(work.start, work.count)
        return shape
