"""Attention over scattered blocks equals attention over what lies in a row, and nobody sees a neighbour."""

import pytest
import torch
from torch.nn import functional

from actors.models.attention import PagedAttention
from actors.models.cache import CachedTensor
from tests.actors.models.driver import Running, plan

BLOCK = 4


def laid_out(contexts, takes, decodes):
    """A batch of sequences whose last `takes` tokens are computed, on blocks that nobody shares."""
    free = iter(torch.randperm(200, generator=torch.Generator().manual_seed(1)).tolist())
    chosen = [
        Running([0] * context, [next(free) for _ in range(-(-context // BLOCK))], context, context - take)
        for context, take in zip(contexts, takes, strict=True)
    ]
    return plan(chosen, takes, decodes, BLOCK), [running.blocks for running in chosen]


@pytest.mark.parametrize("window", [None, 1, 5, 1000])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_attention_in_a_row(window, softcap, kv_heads):
    torch.manual_seed(0)
    contexts, takes = [1, 9, 30, 17, 6], [1, 1, 1, 12, 6]
    batch, blocks = laid_out(contexts, takes, 3)
    keys, values = (CachedTensor((200 * BLOCK, kv_heads, 8), torch.float32, "cpu") for _ in range(2))
    for cached in (keys, values):
        cached.numbers.fill_(float("nan"))
    rows = torch.randn(sum(takes), 4, 8)
    expected = []
    for context, take, own, start in zip(contexts, takes, blocks, batch.starts.tolist(), strict=False):
        k, v = torch.randn(2, context, kv_heads, 8)
        slots = torch.tensor([own[p // BLOCK] * BLOCK + p % BLOCK for p in range(context)])
        keys.write(slots, k)
        values.write(slots, v)
        expected.append(reference(rows[start : start + take], k, v, window, softcap))
    made = PagedAttention(batch)(rows, keys, values, 0.3, window, softcap)
    assert torch.allclose(made, torch.cat(expected), atol=1e-5)  # what nobody wrote is NaN: reading it would show


def reference(q, k, v, window, softcap):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * 0.3
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    ahead = torch.arange(len(k))[None] - torch.arange(len(k) - len(q), len(k))[:, None]
    hidden = (ahead > 0) | (ahead <= -(window or 10**6))
    weights = functional.softmax(scores.masked_fill(hidden, float("-inf")), -1)
    return torch.einsum("hqk,khd->qhd", weights, v)
