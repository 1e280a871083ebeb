"""Which tokens of a vocabulary may come next. Knows bits; nothing of logits, forms and sequences."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FEW = 512  # tokens: where a form left no more, a mask is made before it is known to be needed

Bits = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Which tokens may come next: a bit each, 32 a word. Not to be changed: compiled code reads it where it lies.

    `forced`: it has one token, which spells best what has to come; others may begin to spell it, too.
    """

    bits: Bits
    forced: bool = False
    few: bool = field(init=False)
    address: int = field(init=False)

    def __post_init__(self) -> None:
        if self.bits.ndim != 1 or self.bits.dtype != np.uint32 or not self.bits.flags.c_contiguous:
            raise ValueError("a mask is 32-bit words in one piece of memory")
        object.__setattr__(self, "few", bool(np.bitwise_count(self.bits).sum() <= FEW))
        object.__setattr__(self, "address", self.bits.ctypes.data)

    def has(self, token: int) -> bool:
        """Whether the bit of `token` is set."""
        return bool(int(self.bits[token >> 5]) >> (token & 31) & 1)
