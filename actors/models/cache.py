"""What a model keeps of every token: numbers in its own type, or bytes with a scale for each token and head.

Knows slots and rounding, and asks `tiles` where the kernels are to read. Knows nothing of attention, blocks or
sequences. Bytes are symmetric: the largest magnitude
of a head becomes 127, as in vLLM's and TensorRT-LLM's int8 caches with a scale for each token and head.
"""

import math
from collections.abc import Sequence

import torch

from actors.models.memory import zeros
from actors.models.tiles import Tiles, put_scales, take_scales

KV_CACHE_DTYPES = ("auto", "int8")
SCALE_BYTES = 4
LARGEST = 127


class CachedTensor:
    """[slots, ...] numbers of `dtype`; `scales` has no last dimension, and is None where nothing is rounded.

    Row by row, or in the order of `tiles`, which takes three dimensions and a number of slots that is whole tiles.
    """

    __slots__ = ("dtype", "numbers", "scales", "tiles")

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: str,
        kv_cache_dtype: str = "auto",
        tiles: Tiles | None = None,
    ) -> None:
        self.dtype, self.tiles = dtype, tiles
        rounds = kv_cache_dtype == "int8"
        self.numbers = zeros(shape, torch.int8 if rounds else dtype, device)
        self.scales = zeros(shape[:-1], torch.float32, device) if rounds else None

    @property
    def shape(self) -> torch.Size:
        return self.numbers.shape

    @property
    def parts(self) -> tuple[torch.Tensor, ...]:
        """All that it is made of."""
        return (self.numbers,) if self.scales is None else (self.numbers, self.scales)

    def write(self, slots: torch.Tensor, new: torch.Tensor) -> None:
        """Put `new` [T, ...] where `slots` [T] says."""
        scales = None
        if self.scales is not None:
            new, scales = rounded(new)
        if self.tiles is None:
            self.numbers.index_copy_(0, slots, new)
        else:
            self.tiles.put(self.numbers, slots, new)
        if self.scales is None or scales is None:
            return
        if self.tiles is None:
            self.scales.index_copy_(0, slots, scales)
        else:
            put_scales(self.scales, slots, scales)

    def read(self, slots: torch.Tensor) -> torch.Tensor:
        """[len(slots), ...] in `dtype`."""
        numbers = self.numbers.index_select(0, slots) if self.tiles is None else self.tiles.take(self.numbers, slots)
        if self.scales is None:
            return numbers
        whole = self.scales.index_select(0, slots) if self.tiles is None else take_scales(self.scales, slots)
        return (numbers.float() * whole[..., None]).to(self.dtype)


def rounded(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes [..., d] and the float32 scales [...] that turn them back; no numbers have no numbers as their scale."""
    wide = numbers.float()
    scales = wide.abs().amax(-1) / LARGEST
    units = torch.where(scales == 0, 1.0, scales)
    return (wide / units[..., None]).round().nan_to_num(0).clamp(-LARGEST, LARGEST).to(torch.int8), scales


def bytes_per_token(shape: Sequence[int], dtype: torch.dtype, kv_cache_dtype: str) -> int:
    """What a `CachedTensor` of slots of `shape` takes for each of them."""
    if kv_cache_dtype == "int8":
        return math.prod(shape) + SCALE_BYTES * math.prod(shape[:-1])
    return math.prod(shape) * dtype.itemsize
