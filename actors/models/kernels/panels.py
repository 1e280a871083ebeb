"""Float weights in the order in which the kernels read them, and products with them.

`pack` turns a row-major weight into panels of 16 rows where it lies (`src/panels.h`): nothing is copied, and whoever
still holds the tensor finds it empty instead of reading other numbers than it thinks. Each element of a product is one
sum over K in order, so that a row's result does not depend on the rows beside it, on threads, or on which columns a
rank has.
"""

from ctypes import addressof
from dataclasses import dataclass

import torch

from actors.models.kernels import interface
from actors.models.kernels.operations import TYPES

COLUMNS = 16  # rows of the weight, columns of y, in a panel: lanes of a vector


@dataclass(frozen=True, slots=True)
class PanelWeight:
    """A weight for the kernels alone; `memory` is flat, [panel][unit][row], a unit being a float or two bf16."""

    shape: tuple[int, int]
    memory: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """float32 or bfloat16."""
        return self.memory.dtype

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """[..., K]: the rows of `index`, as an embedding looks them up."""
        rows, columns = self.shape
        units = self.memory.view(torch.int32)
        each, flat = units.numel() // rows, index.reshape(-1)
        panel = flat // COLUMNS
        width = (rows - panel * COLUMNS).clamp(max=COLUMNS)  # the last panel has the rows that are left
        first = panel * COLUMNS * each + flat % COLUMNS
        chosen = units[first[:, None] + torch.arange(each) * width[:, None]]
        return chosen.view(self.dtype).view(*index.shape, columns)

    def unpacked(self) -> torch.Tensor:
        """A row-major copy [N, K]."""
        copy = PanelWeight(self.shape, self.memory.clone())
        described = copy.describe()
        _library().unpack_panels(TYPES[self.dtype], addressof(described))
        return copy.memory.view(self.shape)

    def describe(self, bias: int | None = None) -> interface.Weights:
        """For the compiled code; `bias` is an address."""
        return interface.Weights(self.memory.data_ptr(), bias, *self.shape, bits=0, group=COLUMNS)


def pack(weight: torch.Tensor) -> PanelWeight:
    """Turn `weight` [N, K] into panels in its own memory; the tensor is empty afterwards. Raises ValueError."""
    if weight.dtype not in TYPES or weight.ndim != 2 or weight.device.type != "cpu":
        raise ValueError(f"{weight.dtype} {list(weight.shape)} on {weight.device}: the kernels take float matrices")
    if not weight.is_contiguous():
        raise ValueError(f"a weight of shape {list(weight.shape)} does not lie in one piece")
    if weight.dtype is torch.bfloat16 and weight.shape[1] % 2:
        raise ValueError(f"bf16 is read in pairs: the width {weight.shape[1]} is odd")
    made = PanelWeight((weight.shape[0], weight.shape[1]), weight.detach().view(-1))
    described = made.describe()
    _library().pack_panels(TYPES[made.dtype], addressof(described))
    weight.data = weight.new_empty((0, made.shape[1]))
    return made


def linear(
    x: torch.Tensor, weight: PanelWeight, bias: torch.Tensor | None = None, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """`x` [M, K] times the weight [N, K] transposed, plus float32 `bias` [N]: [M, N] in x's dtype, or float32.

    Rows of `x` may lie apart. Raises ValueError for what the kernels would misread.
    """
    columns, inner = weight.shape
    if x.dtype is not weight.dtype or x.ndim != 2 or x.shape[1] != inner:
        raise ValueError(f"x {x.dtype} {list(x.shape)} is not {weight.dtype} [M, {inner}]")
    if (x.stride(1) != 1 and inner > 1) or x.device.type != "cpu":
        raise ValueError("the rows of x do not lie in one piece of memory each")
    if bias is not None and (bias.dtype is not torch.float32 or bias.shape != (columns,) or not bias.is_contiguous()):
        raise ValueError(f"the bias is not float32 [{columns}]")
    out = x.new_empty((x.shape[0], columns), dtype=out_dtype or x.dtype)
    if out.dtype not in (x.dtype, torch.float32):
        raise ValueError(f"{x.dtype} to {out.dtype}: a product is of x's type or float32")
    weights = weight.describe(None if bias is None else bias.data_ptr())
    _library().linear(
        TYPES[x.dtype], TYPES[out.dtype], x.data_ptr(), addressof(weights), out.data_ptr(), x.shape[0], x.stride(0),
        columns,
    )  # fmt: skip
    return out


def _library() -> interface.Library:
    library = interface.loaded()
    if library is None:
        raise ValueError("the kernels are not available on this machine: ask interface.available() first")
    return library
