"""A weight matrix as small integers and scales: the value that loading makes and kernels pack.

Owns slicing and joining of such matrices. Knows no file format, no kernel and no method of choosing the integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cluster.errors import ModelInvalid


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """`w = (value - zero) * scale`, with one scale (and zero) for each `group` columns of a row.

    values: int8 [N, K], with 4 bits within [-8, 7]. scales: float32 [N, K // group]. zeros: int8 like the scales, or
    None where the integers are symmetric. `group` is K where a row has one scale.
    """

    bits: int
    group: int
    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K): rows out, columns in."""
        return int(self.values.shape[0]), int(self.values.shape[1])

    @property
    def bytes(self) -> int:
        """What it takes when packed: `bits` a value, four bytes a scale, one a zero."""
        zeros = 0 if self.zeros is None else self.zeros.numel()
        return self.values.numel() * self.bits // 8 + self.scales.numel() * 4 + zeros

    @property
    def used(self) -> torch.Tensor:
        """bool like the scales: whether a scale has any weight other than zero."""
        rows, _columns = self.shape
        zeros = 0 if self.zeros is None else self.zeros[..., None]
        return (self.values.view(rows, -1, self.group) != zeros).any(-1)

    def dequantize(self) -> torch.Tensor:
        """float32 [N, K]."""
        rows, columns = self.shape
        wide = self.values.float().view(rows, -1, self.group)
        if self.zeros is not None:
            wide = wide - self.zeros.float()[..., None]
        return (wide * self.scales[..., None]).view(rows, columns)

    def rows(self, start: int, stop: int) -> "QuantizedWeight":
        """Rows `start:stop`: what a rank holds of a projection that is cut by outputs."""
        zeros = None if self.zeros is None else self.zeros[start:stop]
        return QuantizedWeight(self.bits, self.group, self.values[start:stop], self.scales[start:stop], zeros)

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """float32 [..., K]: the rows of `index`, as an embedding looks them up."""
        flat = index.reshape(-1)
        zeros = None if self.zeros is None else self.zeros[flat]
        chosen = QuantizedWeight(self.bits, self.group, self.values[flat], self.scales[flat], zeros)
        return chosen.dequantize().view(*index.shape, self.shape[1])

    def padded(self, rows: int) -> "QuantizedWeight":
        """With rows of zeros after the last, `rows` in all: what an all-gather wants of every rank."""
        lack = rows - self.values.shape[0]
        if not lack:
            return self
        pad = torch.nn.functional.pad
        zeros = None if self.zeros is None else pad(self.zeros, (0, 0, 0, lack))
        return QuantizedWeight(
            self.bits, self.group, pad(self.values, (0, 0, 0, lack)), pad(self.scales, (0, 0, 0, lack)), zeros
        )

    def to(self, device: str) -> "QuantizedWeight":
        """The same on `device`."""
        zeros = None if self.zeros is None else self.zeros.to(device)
        return QuantizedWeight(self.bits, self.group, self.values.to(device), self.scales.to(device), zeros)

    def columns(self, start: int, stop: int, name: str = "a weight") -> "QuantizedWeight":
        """Columns `start:stop`. Raises ModelInvalid naming `name` where that would cut a group.

        One scale a row cuts anywhere, as all columns share it.
        """
        _, width = self.shape
        values = self.values[:, start:stop].contiguous()
        if self.group == width:
            return QuantizedWeight(self.bits, stop - start, values, self.scales, self.zeros)
        first, last = groups_of(start, stop, self.group, name)
        scales = self.scales[:, first:last].contiguous()
        zeros = None if self.zeros is None else self.zeros[:, first:last].contiguous()
        return QuantizedWeight(self.bits, self.group, values, scales, zeros)


def groups_of(start: int, stop: int, group: int, name: str) -> tuple[int, int]:
    """The groups that columns `start:stop` are made of. Raises ModelInvalid where one would be cut."""
    if start % group or stop % group:
        raise ModelInvalid(
            name,
            f"tensor parallelism cuts it at columns {start} and {stop}, within a group of {group} that shares a scale",
            "take a smaller tensor_parallel_size, or one scale a row (int8 without groups)",
        )
    return start // group, stop // group


def join(parts: Sequence[QuantizedWeight], name: str = "a merged projection") -> QuantizedWeight:
    """The parts one under the other, as q, k and v are merged. Raises ModelInvalid, with `name`, for unlike kinds."""
    kinds = {(part.bits, part.group, part.shape[1]) for part in parts}
    if len(kinds) != 1:
        raise ModelInvalid(
            name, f"its parts are quantized unlike: (bits, group, columns) {sorted(kinds)}",
            "quantize q, k and v alike, and gate and up alike",
        )  # fmt: skip
    (bits, group, _) = kinds.pop()
    zeros = None
    if any(part.zeros is not None for part in parts):
        zeros = torch.cat([torch.zeros_like(p.scales, dtype=torch.int8) if p.zeros is None else p.zeros for p in parts])
    values, scales = torch.cat([part.values for part in parts]), torch.cat([part.scales for part in parts])
    return QuantizedWeight(bits, group, values, scales, zeros)
