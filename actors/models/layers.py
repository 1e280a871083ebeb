"""The arithmetic of a decoder layer: the one seam where kernels replace plain torch.

Every function takes packed rows [T, ...]. Knows nothing of caches, ranks or files.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from actors.models.kernels import panels, quantized
from actors.models.kernels.operations import TYPES
from actors.models.kernels.panels import PanelWeight
from actors.models.kernels.quantized import PackedWeight, packed
from actors.models.quantized import QuantizedWeight

Activation = Callable[[torch.Tensor], torch.Tensor]


class Linear:
    """`x @ weight.T + bias`, with weight [out, in]: row-major, or in panels once the kernels have taken it."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: torch.Tensor | PanelWeight, bias: torch.Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.weight, PanelWeight):
            return panels.linear(x, self.weight, None if self.bias is None else self.bias.float())
        return functional.linear(x, self.weight, self.bias)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Without the bias."""
        if isinstance(self.weight, PanelWeight):
            return panels.linear(x, self.weight)
        return functional.linear(x, self.weight)


class QuantizedLinear:
    """The same with a weight of 8 or 4 bits: packed for the kernels where they can take it, else in plain torch."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: PackedWeight | QuantizedWeight, bias: torch.Tensor | None = None) -> None:
        self.weight, self.bias = packed(weight) if isinstance(weight, QuantizedWeight) else weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        made = self.product(x)
        return made if self.bias is None else made + self.bias.to(x.dtype)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Without the bias."""
        if isinstance(self.weight, PackedWeight):
            return quantized.linear(x.contiguous() if x.dtype in TYPES else x.float(), self.weight).to(x.dtype)
        return functional.linear(x, self.weight.dequantize().to(x.dtype))


AnyLinear = Linear | QuantizedLinear


class RMSNorm:
    """Root-mean-square norm over the last dimension.

    Gemma's kind is given `weight` as float32 with its 1 added; the product is then taken in float32 as well.
    """

    __slots__ = ("eps", "weight")

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self.weight, self.eps = weight, eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype) if self.weight.dtype != x.dtype else wide.to(x.dtype) * self.weight

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(norm of the sum, the sum): what a block adds, and the input of the next."""
        residual = residual + x
        return self(residual), residual


def gated(both: torch.Tensor, activation: Activation) -> torch.Tensor:
    """`activation(gate) * up` of `both` [T, gate and up side by side]."""
    gate, up = both.chunk(2, dim=-1)
    return activation(gate) * up


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """`x` [T, heads, d] turned by `cos` and `sin` [T, 1, d], halves paired as in GPT-NeoX and Llama."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin
