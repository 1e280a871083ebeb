"""Move the size of activations into weights and back, so that what matters is rounded finely: AWQ and SmoothQuant.

AWQ: Lin et al. 2023, arXiv 2306.00978, the search of its section 3.2. SmoothQuant: Xiao et al. 2022,
arXiv 2211.10438, equation 4. Both divide an input channel where it is made (a norm, or the linear layer before) and
multiply the columns that read it: without rounding the model computes the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from actors.quantization.activations import Inputs
from actors.quantization.rounding import nearest

STEPS = 20  # exponents tried between 0 and 1: AWQ's own grid
MIGRATION = 0.5  # SmoothQuant's alpha


@dataclass(frozen=True, slots=True)
class Fold:
    """Linear layers that read the same input, and what makes it: a norm or a linear layer.

    `repeat`: how many heads read each head that is made, where keys and values are shared.
    """

    maker: nn.Module
    readers: tuple[nn.Linear, ...]
    inputs: Inputs
    offset: bool = False  # Gemma's norms scale by 1 + weight
    heads: int = 1
    repeat: int = 1

    def shared(self, channels: torch.Tensor) -> torch.Tensor:
        """The largest of what reads the same made channel, for each reader: as all of them are scaled alike."""
        if self.repeat == 1:
            return channels
        made = channels.view(self.heads, self.repeat, -1).amax(1, keepdim=True)
        return made.expand(-1, self.repeat, -1).reshape(-1)

    @torch.no_grad()
    def apply(self, scale: torch.Tensor) -> None:
        """Divide the input by `scale` [K] where it is made and multiply the columns that read it."""
        made = scale
        if self.repeat > 1:
            made = scale.view(self.heads, self.repeat, -1)[:, 0].reshape(-1)
        weight = self.maker.get_parameter("weight")
        if isinstance(self.maker, nn.Linear):
            weight.div_(made[:, None])
            if self.maker.bias is not None:
                self.maker.bias.div_(made)
        elif self.offset:
            weight.copy_((weight + 1.0) / made - 1.0)
        else:
            weight.div_(made)
        for reader in self.readers:
            reader.weight *= scale
        self.inputs.second /= scale[:, None] * scale
        self.inputs.mean /= scale
        self.inputs.largest /= scale


def awq(fold: Fold, bits: int, group: int) -> torch.Tensor:
    """The scale [K], out of powers of the mean activation, that leaves the smallest error in the readers' outputs."""
    mean = fold.shared(fold.inputs.mean / max(fold.inputs.rows, 1)).clamp(min=1e-4)
    weights = [reader.weight.detach().float() for reader in fold.readers]
    best, least = torch.ones_like(mean), torch.tensor(float("inf"))
    for step in range(STEPS):
        scale = mean ** (step / STEPS)
        scale = (scale / (scale.max() * scale.min()).sqrt()).clamp(min=1e-4)
        found = _loss(weights, scale, fold.inputs.second, bits, group)
        if found < least:
            best, least = scale, found
    return best


def smooth(fold: Fold) -> torch.Tensor:
    """SmoothQuant's scale [K]: the outliers of the activations and of the weights meet half way."""
    widest = torch.stack([reader.weight.detach().float().abs().amax(0) for reader in fold.readers]).amax(0)
    active, widest = fold.shared(fold.inputs.largest), fold.shared(widest)
    scale = active.clamp(min=1e-5) ** MIGRATION / widest.clamp(min=1e-5) ** (1 - MIGRATION)
    return scale.clamp(min=1e-5).where(active > 0, 1.0)


def _loss(
    weights: Sequence[torch.Tensor], scale: torch.Tensor, second: torch.Tensor, bits: int, group: int
) -> torch.Tensor:
    total = torch.zeros(())
    for weight in weights:
        difference = nearest(weight * scale, bits, group).dequantize() / scale - weight
        total += ((difference @ second) * difference).sum()
    return total
