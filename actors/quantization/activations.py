"""What flows into the linear layers of one decoder layer while it runs over sample text.

Owns sums over samples. Knows nothing of what is made of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Inputs:
    """Of one linear layer's inputs: second moments [K, K], the mean and the largest absolute value [K]."""

    def __init__(self, columns: int) -> None:
        self.second = torch.zeros((columns, columns))
        self.mean = torch.zeros(columns)
        self.largest = torch.zeros(columns)
        self.rows = 0

    def add(self, x: torch.Tensor) -> None:
        """Count rows [..., K] in."""
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        self.second.addmm_(flat.T, flat)
        size = flat.abs()
        self.mean += size.sum(0)
        torch.maximum(self.largest, size.amax(0), out=self.largest)
        self.rows += len(flat)


@contextmanager
def watched(layer: nn.Module, real: torch.Tensor) -> Iterator[dict[str, Inputs]]:
    """Inputs of every linear layer within `layer` by name, added up while the context is open, where `real` [B, T]."""
    found: dict[str, Inputs] = {}
    hooks = []
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = Inputs(module.in_features)
            hooks.append(module.register_forward_pre_hook(_listener(found[name], real)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _listener(inputs: Inputs, real: torch.Tensor) -> Any:
    def listen(_module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        inputs.add(arguments[0][real])

    return listen
