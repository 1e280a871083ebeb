"""Attention straight over a paged KV cache, in plain torch.

A cache is two `CachedTensor`s [slots, kv_heads, d]; `Batch` says which slots belong to which sequence. A sequence reads
only slots that were written for it, so nothing that another one computed can reach it.
"""

import torch
from torch.nn import functional

from actors.models.batch import Batch
from actors.models.cache import CachedTensor


class PagedAttention:
    """Attention for one batch; what all layers share (slots, masks) is worked out once."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._parts = _parts(batch)

    def __call__(
        self,
        q: torch.Tensor,
        key_cache: CachedTensor,
        value_cache: CachedTensor,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """`q` [T, heads, d] -> [T, heads, d]. A row at position p sees positions p-window+1 to p of its sequence."""
        out = torch.empty_like(q)
        for part in self._parts:
            shape = (part.sequences, part.longest, *key_cache.shape[1:])
            keys = key_cache.read(part.slots).view(shape).transpose(1, 2)
            values = value_cache.read(part.slots).view(shape).transpose(1, 2)
            rows = q[part.first : part.last].view(part.sequences, part.queries, *q.shape[1:]).transpose(1, 2)
            seen = attend(rows, keys, values, part.mask(window), scale, softcap)
            out[part.first : part.last] = seen.transpose(1, 2).reshape(-1, *q.shape[1:])
        return out


class Part:
    """Sequences of a batch that are computed as one padded tensor: all decodes, or one prefill chunk.

    `positions` [sequences, queries] of its rows; `slots` [sequences * longest] of all it may read, the slots past
    a sequence's end being its own last one, so that masked places hold finite numbers of its own.
    """

    def __init__(self, batch: Batch, first_sequence: int, last_sequence: int, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.sequences = last_sequence - first_sequence
        self.queries = (last - first) // self.sequences
        contexts = batch.contexts[first_sequence:last_sequence].long()[:, None]
        self.longest = int(contexts.max())
        self.positions = contexts - self.queries + torch.arange(self.queries, device=contexts.device)
        self.columns = torch.arange(self.longest, device=contexts.device)
        readable = torch.minimum(self.columns[None], contexts - 1)
        blocks = batch.tables[first_sequence:last_sequence].long().gather(1, readable // batch.block_tokens)
        self.slots = (blocks * batch.block_tokens + readable % batch.block_tokens).flatten()
        self._masks: dict[int | None, torch.Tensor] = {}

    def mask(self, window: int | None) -> torch.Tensor:
        """Boolean [sequences, 1, queries, longest]: true where a row may look."""
        if window not in self._masks:
            rows = self.positions[:, None, :, None]
            seen = self.columns <= rows
            self._masks[window] = seen if window is None else seen & (self.columns > rows - window)
        return self._masks[window]


def attend(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    softcap: float | None,
) -> torch.Tensor:
    """`q` [B, heads, Q, d] over `keys`, `values` [B, kv_heads, L, d] where `mask` [B, 1, Q, L] is true."""
    if softcap is None:
        return functional.scaled_dot_product_attention(q, keys, values, mask, scale=scale, enable_gqa=True)
    groups = q.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    scores = torch.tanh(q @ keys.transpose(-1, -2) * (scale / softcap)) * softcap
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=torch.float32)
    return weights.to(q.dtype) @ values


def _parts(batch: Batch) -> list[Part]:
    parts = [Part(batch, 0, batch.decodes, 0, batch.decodes)] if batch.decodes else []
    starts = batch.starts.tolist()
    for sequence in range(batch.decodes, batch.sequences):
        parts.append(Part(batch, sequence, sequence + 1, starts[sequence], starts[sequence + 1]))
    return parts
