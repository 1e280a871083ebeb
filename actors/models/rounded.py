"""transformers' own linears with weights of 8 or 4 bits, computed as those of our own layers are.

Rounds what was read as floats, one module after the other: while it does, a model takes the memory of its floats.
Embeddings, experts' banks and routers stay in floats. Knows modules and no rank: what a rank keeps is rounded as it is.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from actors.models.layers import QuantizedLinear
from actors.quantization.rounding import group_for, nearest

ROUTERS = ("gate", "router")  # a choice of experts that flips is worth more than the few bytes


def round_linears(model: Any, bits: int) -> None:
    """Round the weight of every linear of `model` that is nobody else's, and let its forward use the integers."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for name, module in model.named_modules():
        if type(module) not in (nn.Linear, Conv1D) or name.rpartition(".")[2] in ROUTERS:
            continue
        if owners[id(module.weight)] == 1:
            _round(module, bits)


def _round(module: Any, bits: int) -> None:
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    made = QuantizedLinear(nearest(weight, *group_for(bits, weight.shape[1])))
    # of no size, so that whoever takes the weight past the forward fails where a model is proven, and is refused
    empty = (0, weight.shape[0]) if isinstance(module, Conv1D) else (weight.shape[0], 0)
    module.weight = nn.Parameter(module.weight.new_empty(empty), requires_grad=False)
    module.forward = partial(_forward, module, made)


def _forward(module: Any, made: QuantizedLinear, x: torch.Tensor) -> torch.Tensor:
    product = made.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
    return product if module.bias is None else product + module.bias
