"""How the kernels want keys and values to lie: sixteen slots side by side, so that no sum runs across a vector.

Knows index arithmetic alone. A tile of 16 slots holds, for each head, keys as [d / unit, 16, unit] and values as
[16 / unit, d, unit], where a unit is what one lane multiplies: a float, or two numbers of 2 bytes or 1. Scales of bytes
are [heads, 16]. A cache keeps its shape [slots, heads, d] and whole tiles are copied as the bytes they are, but only
`put` and `take` know what is where.
"""

from dataclasses import dataclass

import torch

SLOTS = 16


@dataclass(frozen=True, slots=True)
class Tiles:
    """The order of keys, or of values."""

    keys: bool

    def put(self, numbers: torch.Tensor, slots: torch.Tensor, new: torch.Tensor) -> None:
        """Write `new` [T, heads, d] where `slots` [T] says in `numbers` [all slots, heads, d]."""
        unit, tile, lane = _unit(numbers), slots // SLOTS, slots % SLOTS
        view = self._view(numbers)
        if self.keys:
            view[tile, :, :, lane] = new.reshape(*new.shape[:2], -1, unit)
        else:
            view[tile, :, lane // unit, :, lane % unit] = new

    def take(self, numbers: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """[len(slots), heads, d] of `numbers`."""
        unit, tile, lane = _unit(numbers), slots // SLOTS, slots % SLOTS
        view = self._view(numbers)
        if self.keys:
            return view[tile, :, :, lane].reshape(len(slots), *numbers.shape[1:])
        return view[tile, :, lane // unit, :, lane % unit]

    def _view(self, numbers: torch.Tensor) -> torch.Tensor:
        slots, heads, dim = numbers.shape
        unit = _unit(numbers)
        inner = (dim // unit, SLOTS) if self.keys else (SLOTS // unit, dim)
        return numbers.view(slots // SLOTS, heads, *inner, unit)


def put_scales(scales: torch.Tensor, slots: torch.Tensor, new: torch.Tensor) -> None:
    """Write `new` [T, heads] into `scales` [all slots, heads]."""
    scales.view(-1, scales.shape[1], SLOTS)[slots // SLOTS, :, slots % SLOTS] = new


def take_scales(scales: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """[len(slots), heads] of `scales`."""
    return scales.view(-1, scales.shape[1], SLOTS)[slots // SLOTS, :, slots % SLOTS]


def _unit(numbers: torch.Tensor) -> int:
    return 1 if numbers.element_size() == 4 else 2  # bytes of a float


KEYS, VALUES = Tiles(keys=True), Tiles(keys=False)
