"""Zeroed memory that costs nothing until it is written.

`torch.zeros` writes every page at once: a KV cache of gigabytes would be resident before the first request. On CPU
numpy's calloc lets the kernel hand out zero pages at first touch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch


def zeros(shape: Sequence[int], dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
    """Like `torch.zeros`."""
    if torch.device(device).type != "cpu":
        return torch.zeros(*shape, dtype=dtype, device=device)
    flat = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
    return torch.from_numpy(flat).view(dtype).view(*shape)
