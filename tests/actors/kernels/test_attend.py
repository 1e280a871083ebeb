"""Paged attention against the plain version, and against a cache full of what must not be read."""

import pytest
import torch

from actors.models.attention import PagedAttention
from actors.models.cache import CachedTensor
from actors.models.kernels.operations import attend
from actors.models.tiles import KEYS, VALUES
from tests.actors.kernels.batches import scattered, slots_in

pytestmark = pytest.mark.usefixtures("either")

BATCHES = {
    "decode 1": ([1], [99]),
    "decode first token": ([1], [0]),
    "decode 8": ([1] * 8, [0, 1, 7, 15, 63, 64, 65, 200]),
    "decode 32": ([1] * 32, list(range(0, 160, 5))),
    "chunk from the start": ([70], [0]),
    "chunk of 16 after 100": ([16], [100]),
    "mixed": ([1, 1, 1, 2, 17, 64, 65], [3, 64, 130, 9, 0, 63, 33]),
}
# a float32 sum of some hundred terms of size 1; bf16 rounds the weights of values to 8 bits, and the result
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
# queries are rounded to 16 bits
INT8_TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 2e-2}


def cached(keys, values, rounded="auto"):
    made = []
    for numbers, tiles in ((keys, KEYS), (values, VALUES)):
        made.append(CachedTensor(numbers.shape, numbers.dtype, "cpu", rounded, tiles))
        made[-1].write(torch.arange(len(numbers)), numbers)
    return made


def both(batch, dtype, heads, kv_heads, dim, **kind):
    numbers = [torch.randn(slots_in(batch), kv_heads, dim).to(dtype) for _ in range(2)]
    exact = [n.float() for n in numbers]
    q = torch.randn(len(batch.tokens), heads, dim).to(dtype)
    made = attend(q, *cached(*numbers), batch, scale=dim**-0.5, **kind)
    plain = PagedAttention(batch)(q.float(), *cached(*exact), dim**-0.5, **kind)
    torch.testing.assert_close(made.float(), plain, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    # the same bytes, so that only the arithmetic differs
    made = attend(q, *cached(*numbers, "int8"), batch, scale=dim**-0.5, **kind)
    plain = PagedAttention(batch)(q.float(), *cached(*exact, "int8"), dim**-0.5, **kind)
    torch.testing.assert_close(made.float(), plain, rtol=INT8_TOLERANCE[dtype], atol=INT8_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BATCHES)
def test_equals_the_plain_version(name, dtype):
    batch = scattered(*BATCHES[name])
    for heads, kv_heads in ((3, 1), (4, 4), (8, 2), (10, 2)):
        both(batch, dtype, heads, kv_heads, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [8, 24, 40, 80, 96, 128, 256])
def test_every_width_of_head(dim, dtype):
    both(scattered([1, 1, 20], [5, 70, 50]), dtype, 6, 2, dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [1, 5, 64, 1000])
def test_windows(window, dtype):
    both(scattered([1, 1, 1, 40, 90], [0, 63, 200, 100, 0]), dtype, 4, 2, 32, window=window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softcap(dtype):
    both(scattered([1, 1, 40], [9, 100, 30]), dtype, 4, 2, 32, softcap=2.0)


def test_long_contexts_are_cut_over_threads_and_joined():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        both(scattered([1], [1500]), torch.float32, 2, 1, 32)
        both(scattered([1, 80], [700, 1000]), torch.float32, 2, 1, 32, window=600)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "before"), [(1, 20), (13, 7)])
def test_reads_nothing_that_is_not_its_own(count, before, dtype):
    batch = scattered([count], [before])
    keys, values = (torch.full((slots_in(batch), 1, 32), torch.nan, dtype=dtype) for _ in range(2))
    own = batch.tables[0].repeat_interleave(16)[: count + before] * 16 + torch.arange(count + before) % 16
    keys[own], values[own] = 0, 1
    q = torch.randn(count, 2, 32).to(dtype)
    for rounded in ("auto", "int8"):
        made = attend(q, *cached(keys, values, rounded), batch, scale=1.0)
        torch.testing.assert_close(made, torch.ones_like(q), rtol=0, atol=0 if rounded == "auto" else 1e-6)


def test_refuses_heads_that_do_not_fit():
    batch = scattered([1], [3])
    caches = cached(*torch.zeros(2, slots_in(batch), 2, 8))
    with pytest.raises(ValueError, match="heads"):
        attend(torch.zeros(1, 3, 8), *caches, batch, scale=1.0)
    with pytest.raises(ValueError, match="type"):
        attend(torch.zeros(1, 2, 8).bfloat16(), *caches, batch, scale=1.0)


def test_refuses_a_cache_that_lies_otherwise():
    batch = scattered([1], [3])
    keys, values = cached(*torch.zeros(2, slots_in(batch), 2, 8))
    with pytest.raises(ValueError, match="tiles"):
        attend(torch.zeros(1, 2, 8), values, keys, batch, scale=1.0)
    with pytest.raises(ValueError, match="tiles of 16 slots"):
        attend(torch.zeros(1, 2, 8), keys, values, scattered([1], [3], block_tokens=8), scale=1.0)
