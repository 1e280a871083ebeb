"""What one forward pass computes: packed tokens of many sequences and where their keys and values live."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows. T tokens of S sequences, packed one after the other, decodes first.

    Sequence i owns rows `starts[i]:starts[i+1]`; its keys and values, these rows' included, are the first
    `contexts[i]` positions of the blocks `tables[i]`. Position p of a sequence with block table `t` lives at
    slot `t[p // block_tokens] * block_tokens + p % block_tokens` of every layer's cache.
    Rows `[0, decodes)` are sequences that compute exactly one token each.
    """

    tokens: torch.Tensor  # int64 [T]
    positions: torch.Tensor  # int64 [T]
    slots: torch.Tensor  # int64 [T]: where each row's key and value are written
    starts: torch.Tensor  # int32 [S + 1]
    contexts: torch.Tensor  # int32 [S]: tokens in the cache after this step
    tables: torch.Tensor  # int32 [S, W]: block ids, rows padded with 0
    rows: torch.Tensor  # int64 [R]: the rows whose logits are wanted
    decodes: int
    longest_query: int
    longest_context: int
    block_tokens: int

    @property
    def sequences(self) -> int:
        """How many sequences take part."""
        return self.contexts.shape[0]
