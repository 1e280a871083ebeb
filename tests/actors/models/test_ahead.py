"""Pages of a cache are there before anybody writes to them, no more than asked, and what lies in them stays."""

import ctypes
import gc
import mmap
import threading

import pytest
import torch

from actors.models.ahead import PIECE_TOKENS, Ahead
from actors.models.memory import zeros

BLOCK, SLOTS = 16, 8 * PIECE_TOKENS
PAGE = mmap.PAGESIZE
SOON = 30.0  # seconds: a thread of the lowest priority waits while the machine is busy


def resident(tensor: torch.Tensor) -> int:
    """Pages of `tensor` that are in memory."""
    first = tensor.data_ptr() // PAGE * PAGE
    size = tensor.data_ptr() + tensor.nbytes - first
    seen = (ctypes.c_ubyte * -(-size // PAGE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), seen) == 0
    return sum(one & 1 for one in seen)


@pytest.fixture
def cache():
    return [zeros((SLOTS, 1, 512), torch.float32, "cpu"), zeros((SLOTS, 2, 256), torch.bfloat16, "cpu")]


def pages(tensor: torch.Tensor) -> int:
    return -(-tensor.nbytes // PAGE)


def test_some_pages_are_made_before_anything_is_written(cache):
    ahead = Ahead(cache, BLOCK, tokens=PIECE_TOKENS)
    assert ahead.wait(SOON)
    assert ahead.made == PIECE_TOKENS
    for tensor in cache:
        assert resident(tensor[:PIECE_TOKENS]) >= pages(tensor[:PIECE_TOKENS])
        assert not tensor.any()


def test_more_are_made_as_blocks_come_into_use_and_never_fewer(cache):
    ahead = Ahead(cache, BLOCK, tokens=PIECE_TOKENS)
    ahead.reached(3 * PIECE_TOKENS // BLOCK - 1)
    assert ahead.wait(SOON)
    assert ahead.made == 4 * PIECE_TOKENS
    ahead.reached(0)
    assert ahead.wait(SOON)
    assert ahead.made == 4 * PIECE_TOKENS
    ahead.reached(SLOTS // BLOCK - 1)
    assert ahead.wait(SOON)
    assert ahead.made == SLOTS
    assert all(resident(tensor) >= pages(tensor) for tensor in cache)


def test_in_the_end_all_of_a_cache_whose_size_was_told(cache):
    each = sum(tensor[:1].nbytes for tensor in cache)
    ahead = Ahead(cache, BLOCK, tokens=SLOTS, most_bytes=PIECE_TOKENS * each, whole=True)
    assert ahead.wait(SOON)
    assert ahead.made == SLOTS
    assert all(resident(tensor) >= pages(tensor) for tensor in cache)


def test_no_more_bytes_are_made_ahead_than_may_be(cache):
    each = sum(tensor[:1].nbytes for tensor in cache)
    ahead = Ahead(cache, BLOCK, tokens=SLOTS, most_bytes=PIECE_TOKENS * each)
    assert ahead.wait(SOON)
    assert ahead.made == PIECE_TOKENS


def test_what_is_written_meanwhile_stays(cache):
    for tensor in cache:
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) % 251)
    expected = [tensor.clone() for tensor in cache]
    ahead = Ahead(cache, BLOCK, tokens=SLOTS)
    assert ahead.wait(SOON)
    assert all(torch.equal(tensor, before) for tensor, before in zip(cache, expected, strict=True))


def test_the_thread_ends_with_its_cache_and_lets_go_of_it(cache):
    before = set(threading.enumerate())
    ahead = Ahead(cache, BLOCK, tokens=PIECE_TOKENS)
    (thread,) = set(threading.enumerate()) - before
    assert ahead.wait(SOON)
    counted = len(gc.get_referrers(cache[0]))
    del ahead
    gc.collect()
    thread.join(SOON)
    assert not thread.is_alive()
    assert len(gc.get_referrers(cache[0])) < counted


def test_where_the_system_cannot_nobody_waits(cache, monkeypatch):
    monkeypatch.setattr("actors.models.ahead._MADV_POPULATE_WRITE", 9999)
    ahead = Ahead(cache, BLOCK)
    assert ahead.wait(SOON)
    assert ahead.made == 0
