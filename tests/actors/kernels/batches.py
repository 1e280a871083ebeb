"""Batches whose blocks lie scattered in a cache that holds other sequences' numbers as well."""

from collections.abc import Sequence
from random import Random

import torch

from actors.models.batch import Batch


def scattered(
    counts: Sequence[int], befores: Sequence[int], block_tokens: int = 16, vocab: int = 50, seed: int = 0
) -> Batch:
    """Sequence i computes `counts[i]` tokens after `befores[i]` that are in the cache already; decodes stand first."""
    random = Random(seed)
    needs = [-(-(count + before) // block_tokens) for count, before in zip(counts, befores, strict=True)]
    blocks = list(range(sum(needs) + 4))
    random.shuffle(blocks)
    tables = [[blocks.pop() for _ in range(need)] for need in needs]
    positions, slots, starts = [], [], [0]
    for count, before, table in zip(counts, befores, tables, strict=True):
        span = range(before, before + count)
        positions += span
        slots += [table[p // block_tokens] * block_tokens + p % block_tokens for p in span]
        starts.append(len(positions))
    return Batch(
        tokens=torch.tensor([random.randrange(vocab) for _ in positions]),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        starts=torch.tensor(starts, dtype=torch.int32),
        contexts=torch.tensor([c + b for c, b in zip(counts, befores, strict=True)], dtype=torch.int32),
        tables=torch.tensor([t + [0] * (max(needs) - len(t)) for t in tables], dtype=torch.int32),
        rows=torch.tensor(starts[1:]) - 1,
        decodes=sum(count == 1 for count in counts),
        longest_query=max(counts),
        longest_context=max(c + b for c, b in zip(counts, befores, strict=True)),
        block_tokens=block_tokens,
    )


def slots_in(batch: Batch) -> int:
    """How many slots a cache needs for `batch`, free blocks included."""
    used = -(-batch.contexts // batch.block_tokens)
    return int(used.sum() + 4) * batch.block_tokens
