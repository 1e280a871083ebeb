"""Weights of 8 and 4 bits in the order in which the kernels read them, and products with them.

`pack` lays a `QuantizedWeight` out as `src/quantized.h` says, in huge pages where the system gives them. A product
turns each row of x into bytes as well, one scale for up to 1,280 neighbouring places.
"""

from ctypes import addressof
from dataclasses import dataclass

import torch

from actors.models.kernels import interface
from actors.models.kernels.operations import TYPES
from actors.models.memory import LINE, room
from actors.models.quantized import QuantizedWeight

COLUMNS = 16  # of y in a block: lanes of a vector
GROUPS = (32, 64, 128)
AT_ONCE = 16  # blocks that are packed together: their bytes stay in the second cache


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight for the kernels alone: `memory` is uint8, in blocks of 16 rows."""

    bits: int
    group: int
    shape: tuple[int, int]
    centred: bool  # no zeros
    memory: torch.Tensor

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """float32 [..., K]: the rows of `index`, as an embedding looks them up."""
        rows, columns = self.shape
        block, lane = index.reshape(-1) // COLUMNS, index.reshape(-1) % COLUMNS
        count, groups = -(-rows // COLUMNS), columns // self.group
        blocks = self.memory.view(count, -1)
        scales = blocks[:, :LINE].view(torch.float32)[block, lane][:, None, None]
        at = LINE
        if groups > 1 or not self.centred:
            ratios = blocks[:, at : at + groups * 2 * COLUMNS].view(torch.float16).view(count, groups, COLUMNS)
            scales = scales * ratios[block, :, lane].float()[..., None]
            at += -(-groups * 2 * COLUMNS // LINE) * LINE
        zeros = torch.zeros(1)
        if not self.centred:
            held = blocks[:, at : at + groups * COLUMNS].view(torch.int8).view(count, groups, COLUMNS)
            zeros = held[block, :, lane].float()[..., None]
            at += -(-groups * COLUMNS // LINE) * LINE
        words = blocks[:, at:].view(count, -1, COLUMNS, 4)[block, :, lane]  # [n, words, 4]
        if self.bits == 4:
            words = torch.stack([words & 15, words >> 4], 2)
        values = words.reshape(len(block), groups, self.group).float() - (128.0 if self.bits == 8 else 8.0)
        return ((values - zeros) * scales).view(*index.shape, columns)

    def describe(self, bias: int | None = None, exact: bool = True) -> interface.Weights:
        """For the compiled code; `bias` is an address. `exact`: a row comes out the same whatever is beside it."""
        rows, columns = self.shape
        return interface.Weights(
            self.memory.data_ptr(), bias, rows, columns, self.bits, self.group, 0 if self.centred else 1, exact
        )


def packed(weight: QuantizedWeight) -> PackedWeight | QuantizedWeight:
    """`weight` for the kernels, or itself where this machine has none or they do not take it."""
    fits = weight.values.device.type == "cpu" and _refusal(weight) is None and interface.available()
    return pack(weight) if fits else weight


def pack(weight: QuantizedWeight) -> PackedWeight:
    """Lay `weight` out for the kernels. Raises ValueError for what they do not take."""
    if refusal := _refusal(weight):
        raise ValueError(refusal)
    rows, columns = weight.shape
    top = weight.scales.abs().amax(1, keepdim=True)
    parts = [_lines(_blocks(top))]
    if weight.group < columns or weight.zeros is not None:
        # half precision holds a scale's ratio to the largest of its row to 2^-12, whatever its size
        ratios = weight.scales / top.masked_fill(top == 0, 1)
        parts.append(_lines(_blocks(ratios.half())))
    if weight.zeros is not None:
        parts.append(_lines(_blocks(weight.zeros)))
    blocks = -(-rows // COLUMNS)
    width = columns * weight.bits // 8 * COLUMNS
    memory = room(blocks * (sum(part.shape[1] for part in parts) + width)).view(blocks, -1)
    at = 0
    for part in parts:
        memory[:, at : at + part.shape[1]] = part
        at += part.shape[1]
    _values(weight, memory[:, at:])
    return PackedWeight(weight.bits, weight.group, (rows, columns), weight.zeros is None, memory.view(-1))


def linear(
    x: torch.Tensor,
    packed: PackedWeight,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    *,
    exact: bool = True,
) -> torch.Tensor:
    """`x` [M, K] float32 or bf16 times the weight [N, K] transposed, plus float32 `bias` [N]: x's dtype or float32.

    `exact`: each row as if it were alone; without it many rows may be computed faster, by other roundings.
    """
    library = interface.loaded()
    if library is None:
        raise ValueError("the kernels are not available on this machine: ask interface.available() first")
    columns, inner = packed.shape
    out = x.new_empty((x.shape[0], columns), dtype=out_dtype or x.dtype)
    if x.dtype not in TYPES or out.dtype not in (x.dtype, torch.float32):
        raise ValueError(f"{x.dtype} to {out.dtype}: the kernels take float32 and bfloat16")
    if x.ndim != 2 or x.shape[1] != inner or not x.is_contiguous() or x.device.type != "cpu":
        raise ValueError(f"x {list(x.shape)} is not [M, {inner}] in one piece of memory")
    if bias is not None and (bias.dtype is not torch.float32 or bias.shape != (columns,) or not bias.is_contiguous()):
        raise ValueError(f"the bias is not float32 [{columns}]")
    if x.shape[0]:
        weights = packed.describe(None if bias is None else bias.data_ptr(), exact)
        library.quantized_linear(
            TYPES[x.dtype], TYPES[out.dtype], x.data_ptr(), addressof(weights), out.data_ptr(), x.shape[0], inner,
            columns,
        )  # fmt: skip
    return out


def _refusal(weight: QuantizedWeight) -> str | None:
    columns = weight.shape[1]
    if weight.bits not in (4, 8):
        return f"{weight.bits} bits: the kernels take 4 or 8"
    if columns % 32 or weight.group not in (*GROUPS, columns) or columns % weight.group:
        return f"{columns} columns in groups of {weight.group}: not a multiple of 32, or not a known group"
    return None


def _blocks(rows: torch.Tensor) -> torch.Tensor:
    """[N, groups] as [blocks, groups, 16], zeros after the last row."""
    count, groups = rows.shape
    blocks = -(-count // COLUMNS)
    whole = rows.new_zeros(blocks * COLUMNS, groups)
    whole[:count] = rows
    return whole.view(blocks, COLUMNS, groups).transpose(1, 2).contiguous()


def _lines(part: torch.Tensor) -> torch.Tensor:
    """The bytes of each block, filled up to whole lines."""
    flat = part.view(part.shape[0], -1).view(torch.uint8)
    return torch.nn.functional.pad(flat, (0, -flat.shape[1] % LINE))


def _values(weight: QuantizedWeight, into: torch.Tensor) -> None:
    """The integers of `weight`, unsigned, into the values [blocks, bytes] of the packed form, some blocks at a time."""
    _, columns = weight.shape
    fours = into.view(torch.int32)
    for block in range(0, into.shape[0], AT_ONCE):
        part = weight.values[block * COLUMNS : (block + AT_ONCE) * COLUMNS]
        if missing := -part.shape[0] % COLUMNS:
            part = torch.cat([part, part.new_zeros(missing, columns)])
        target = fours[block : block + AT_ONCE]
        if weight.bits == 8:
            lanes = part.contiguous().view(torch.int32)
        else:
            low, high = (part + 8).view(torch.int32).view(part.shape[0], -1, 2).unbind(-1)
            lanes = low | high << 4  # four at a time: no byte is above 15, so none reaches its neighbour
        target.view(target.shape[0], -1, COLUMNS).copy_(lanes.view(target.shape[0], COLUMNS, -1).transpose(1, 2))
    if weight.bits == 8:
        into.bitwise_xor_(0x80)
