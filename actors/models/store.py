"""A paged key-value store behind the cache interface of transformers.

Whatever shapes a layer caches are kept as [slots, ...] tensors. One `PagedCache` serves one forward call of
transformers' modules: it writes the new keys and values to their slots and hands back each sequence's past,
right-aligned, as transformers itself pads on the left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from actors.models.batch import Batch
from actors.models.cache import CachedTensor

Shape = tuple[int, ...]  # of what one layer keeps of one token


@dataclass(frozen=True, slots=True)
class Span:
    """Sequences that are computed by one call: all decodes, or one prefill chunk.

    `rows` are its rows of the batch. `slots` [sequences * longest] are the slots of all positions, right-aligned;
    `seen` [sequences, longest] is true where there is a position, false where there is padding.
    """

    rows: slice
    positions: torch.Tensor
    slots: torch.Tensor
    seen: torch.Tensor

    @property
    def sequences(self) -> int:
        return int(self.seen.shape[0])

    @property
    def longest(self) -> int:
        return int(self.seen.shape[1])


def spans(batch: Batch, padded: bool) -> Iterator[Span]:
    """The calls that `batch` takes; unless `padded`, no call joins sequences of different length."""
    starts = batch.starts.tolist()
    if padded and batch.decodes:
        yield _span(batch, range(batch.decodes), slice(0, batch.decodes))
    for sequence in range(batch.decodes if padded else 0, batch.sequences):
        yield _span(batch, range(sequence, sequence + 1), slice(starts[sequence], starts[sequence + 1]))


def _span(batch: Batch, sequences: range, rows: slice) -> Span:
    contexts = batch.contexts[sequences.start : sequences.stop].long()[:, None]
    longest = int(contexts.max())
    positions = torch.arange(longest, device=contexts.device) - (longest - contexts)
    # a padded column reads the sequence's own first slot: finite, and nobody else's
    readable = positions.clamp(min=0)
    blocks = batch.tables[sequences.start : sequences.stop].long().gather(1, readable // batch.block_tokens)
    slots = blocks * batch.block_tokens + readable % batch.block_tokens
    return Span(rows, batch.positions[rows].view(len(sequences), -1), slots.flatten(), positions >= 0)


class PagedCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """transformers' view of the store for one span."""

    def __init__(self, layers: "list[StoredLayer]", batch: Batch, span: Span) -> None:
        queries = span.positions.shape[1]
        written = batch.slots[span.rows]
        super().__init__(layers=[PagedLayer(layer, span, written, span.longest - queries) for layer in layers])


class StoredLayer:
    """What one layer keeps: tensors [slots, ...], in the order in which the layer hands them over."""

    def __init__(
        self, shapes: tuple[Shape, ...], slots: int, dtype: torch.dtype, device: str, kv_cache_dtype: str = "auto"
    ) -> None:
        self.tensors = [CachedTensor((slots, *shape), dtype, device, kv_cache_dtype) for shape in shapes]


class PagedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """One layer of a PagedCache. Says it is no sliding layer: it returns all of the past and the mask does the rest."""

    def __init__(self, stored: StoredLayer, span: Span, written: torch.Tensor, past: int) -> None:
        super().__init__()
        self.stored, self.span, self.written, self.past = stored, span, written, past
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write and return [sequences, heads, tokens, d], as transformers lays keys and values out."""
        keys = self._turn(0, key_states.transpose(1, 2)).transpose(1, 2)
        values = self._turn(1, value_states.transpose(1, 2)).transpose(1, 2)
        return keys.contiguous(), values.contiguous()

    def update_indexer(self, indexer_key_states: torch.Tensor) -> torch.Tensor:
        """Sparse attention's own keys, [sequences, tokens, d]."""
        return self._turn(2, indexer_key_states)

    def _turn(self, index: int, new: torch.Tensor) -> torch.Tensor:
        """Write `new` [sequences, tokens, ...] and return all of the past in the same layout."""
        kept = self.stored.tensors[index]
        kept.write(self.written, new.reshape(-1, *kept.shape[1:]).to(kept.dtype))
        past = kept.read(self.span.slots)
        return past.view(self.span.sequences, self.span.longest, *kept.shape[1:])

    def get_seq_length(self) -> int:
        return self.past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.past + query_length, 0


def discover(cache: DynamicCache) -> list[tuple[Shape, ...]]:
    """Per layer, what a cache that a model has just filled keeps of one token; nothing for a layer without one."""
    found: list[tuple[Shape, ...]] = []
    for layer in cache.layers:
        kept = [getattr(layer, "keys", None), getattr(layer, "values", None)]
        shapes: list[Shape] = [(t.shape[1], t.shape[3]) for t in kept if isinstance(t, torch.Tensor) and t.dim() == 4]
        indexer = getattr(layer, "indexer_keys", None)
        if isinstance(indexer, torch.Tensor):
            shapes.append((indexer.shape[2],))
        found.append(tuple(shapes) if len(shapes) >= 2 else ())
    return found
