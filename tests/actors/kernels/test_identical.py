"""A row's attention is the same to the last bit, whichever way and beside whomever it is computed."""

from contextlib import contextmanager
from itertools import pairwise
from random import Random

import pytest
import torch

from actors.models.attention import attend as plain_attend
from actors.models.cache import CachedTensor
from actors.models.kernels.operations import attend
from actors.models.tiles import KEYS, VALUES
from tests.actors.models.driver import Running, plan

BLOCK = 32
SHAPES = [(3, 1, 64), (4, 2, 128), (2, 2, 96), (5, 1, 256), (8, 2, 40), (7, 1, 4)]
KINDS = [{}, {"window": 1}, {"window": 50}, {"window": 530}, {"softcap": 3.0}]
LONG = 1100  # three segments
# of a result of size 1: float32 adds 1100 terms; bf16 rounds weights and the result to 8 bits
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Sequence:
    """Queries of `length` tokens, and a cache that holds their keys and values among others'."""

    def __init__(self, length, shape, dtype, rounded, *, others=3):
        self.length, self.shape, (heads, kv_heads, dim) = length, shape, shape
        need = -(-length // BLOCK)
        count = need + 2 * others
        ids = torch.randperm(count).tolist()
        self.blocks, self.rest = ids[:need], ids[need:]
        self.q = torch.randn(length, heads, dim).to(dtype)
        self.numbers = [3 * torch.randn(count * BLOCK, kv_heads, dim).to(dtype) for _ in range(2)]
        self.caches = [
            CachedTensor(n.shape, dtype, "cpu", rounded, tiles)
            for n, tiles in zip(self.numbers, (KEYS, VALUES), strict=True)
        ]
        for cache, new in zip(self.caches, self.numbers, strict=True):
            cache.write(torch.arange(len(new)), new)

    def part(self, start, stop):
        return Running([0] * self.length, self.blocks, self.length, start), stop - start

    def attend(self, cuts, beside=(), **kind):
        """All rows, computed in steps that end at `cuts`; `beside`: (context, rows) of others in the same steps."""
        made = []
        for start, stop in pairwise([0, *cuts]):
            one = self.part(start, stop)
            others = [
                (Running([0] * context, self.rest[2 * i : 2 * i + 2], context, context - rows), rows)
                for i, (context, rows) in enumerate(beside)
            ]
            chosen = sorted([one, *others], key=lambda each: each[1] != 1)
            at = sum(rows for _, rows in chosen[: chosen.index(one)])
            decodes = sum(rows == 1 for _, rows in chosen)
            batch = plan([r for r, _ in chosen], [rows for _, rows in chosen], decodes, BLOCK)
            q = torch.randn(len(batch.tokens), *self.q.shape[1:]).to(self.q.dtype)
            q[at : at + stop - start] = self.q[start:stop]
            out = attend(q, *self.caches, batch, scale=0.9 * self.shape[2] ** -0.5, **kind)
            made.append(out[at : at + stop - start])
        return torch.cat(made)


def cuts_of(length, seed):
    random, cuts = Random(seed), []
    while not cuts or cuts[-1] < length:
        cuts.append(min(length, (cuts or [0])[-1] + random.choice([1, 1, 2, 5, 7, 16, 33, 64, 100])))
    return cuts


@pytest.mark.parametrize("rounded", ["auto", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_however_the_sequence_is_cut(shape, kind, dtype, rounded):
    sequence = Sequence(200, shape, dtype, rounded)
    whole = sequence.attend([200], **kind)
    assert whole.isfinite().all()
    assert torch.equal(sequence.attend(range(1, 201), **kind), whole)
    for seed in range(2):
        beside = [(50, 1), (64, 30), (17, 1)]
        assert torch.equal(sequence.attend(cuts_of(200, seed), beside, **kind), whole)


@pytest.mark.parametrize("rounded", ["auto", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_long_context_on_any_number_of_threads(kind, dtype, rounded):
    sequence = Sequence(LONG, (6, 2, 64), dtype, rounded)
    whole = sequence.attend([LONG], **kind)
    picked = [1, 511, 512, 513, 1024, 1025, LONG]
    with threads(3):
        assert torch.equal(sequence.attend([LONG], **kind), whole)
        assert torch.equal(sequence.attend(cuts_of(LONG, 5), **kind), whole)
    for count in (1, 2, 5):
        with threads(count):
            for last in picked:
                made = sequence.attend([last - 1, last][last == 1 :], **kind)
                assert torch.equal(made[-1], whole[last - 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_is_near_what_double_precision_gives(kind, dtype):
    sequence = Sequence(LONG, (6, 2, 64), dtype, "auto")
    slots = torch.tensor([sequence.blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(LONG)])
    keys, values = (n[slots].double().transpose(0, 1)[None] for n in sequence.numbers)
    places = torch.arange(LONG)
    ahead = places[None] - places[:, None]
    mask = ((ahead <= 0) & (ahead > -kind.get("window", LONG)))[None, None]
    q = sequence.q.double().transpose(0, 1)[None]
    if "softcap" in kind:
        scores = q @ keys.repeat_interleave(3, 1).transpose(-1, -2) * (0.9 / 8 / kind["softcap"])
        weights = (scores.tanh() * kind["softcap"]).masked_fill(~mask, float("-inf")).softmax(-1)
        exact = weights @ values.repeat_interleave(3, 1)
    else:
        exact = plain_attend(q, keys, values, mask, 0.9 / 8, None)
    made = sequence.attend([LONG], **kind).double()
    torch.testing.assert_close(made, exact[0].transpose(0, 1), rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype])
