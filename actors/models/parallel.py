"""The tensor-parallel world of one shard: who it is and how it adds up with the others.

Knows ranks and two collectives. Knows nothing of models or of what makes the processes.
"""

from typing import Protocol

import torch


class World(Protocol):
    """`size` shards of one model; this one is `rank`."""

    rank: int
    size: int

    def all_reduce(self, partial: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place where that is possible; same shape and dtype."""
        ...

    def all_gather(self, piece: torch.Tensor) -> torch.Tensor:
        """All ranks' pieces (equal shapes) side by side along the last dimension."""
        ...


class Alone:
    """A world of one."""

    rank = 0
    size = 1

    def all_reduce(self, partial: torch.Tensor) -> torch.Tensor:
        return partial

    def all_gather(self, piece: torch.Tensor) -> torch.Tensor:
        return piece
