"""Pages of a KV cache, made while the machine has nothing better to do, a little ahead of what steps write.

A page is made when it is first touched, so that a cache takes no more memory than was ever used of it. To make one in
the middle of a step is dear: the system clears 2 MB while all other threads wait, and a second thread that touches the
same page clears another 2 MB for nothing (`benchmarks/fresh_pages.py`). So a thread does that for the blocks that come
next, which are the lowest numbers that were never used: at the start beside all else, later with the lowest priority.
Of a cache whose size somebody has told, all pages are made so in the end.

Knows addresses. Knows nothing of what lies there: making a page leaves what is in it.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch

AHEAD_TOKENS = 16_384
AHEAD_BYTES = 256 << 20
PIECE_TOKENS = 512  # made at a time, so that who ends a cache does not wait
_MADV_POPULATE_WRITE = 23  # Linux 5.14; elsewhere it fails, and pages are made when they are touched
_PAGE = 4096


class Ahead:
    """Keeps some of what is above the highest block in use ready, in a thread that ends with this object."""

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        block_tokens: int,
        tokens: int | None = None,
        most_bytes: int = AHEAD_BYTES,
        whole: bool = False,
    ) -> None:
        """`tensors` [slots, ...] of main memory, of one number of slots, each in one piece; `tokens`: AHEAD_TOKENS.

        `whole`: beyond these the rest as well.
        """
        each = sum(tensor[:1].nbytes for tensor in tensors)
        most = AHEAD_TOKENS if tokens is None else tokens
        self._block_tokens, self._ahead = block_tokens, min(most, most_bytes // max(1, each))
        self._cache = _Cache(list(tensors), wanted=self._ahead, later=len(tensors[0]) if whole else 0)
        weakref.finalize(self, self._cache.end)
        threading.Thread(target=_make, args=(self._cache,), name="kv-pages", daemon=True).start()

    def reached(self, block: int) -> None:
        """Block `block` is in use now."""
        self._cache.want((block + 1) * self._block_tokens + self._ahead)

    @property
    def made(self) -> int:
        """Slots from the first on that are ready."""
        return self._cache.made

    def wait(self, seconds: float) -> bool:
        """Until all that is wanted is ready, or cannot be; whether it came to that."""
        cache = self._cache
        with cache.changed:
            return cache.changed.wait_for(
                lambda: cache.ended or (not cache.lacks and cache.wanted >= cache.later), seconds
            )


@dataclass
class _Cache:
    tensors: list[torch.Tensor]  # held, so that their addresses stay theirs
    wanted: int  # slots
    later: int = 0  # slots, once those are made that are wanted first
    made: int = 0
    ended: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.slots = len(self.tensors[0])
        self.places = [(tensor.data_ptr(), tensor[:1].nbytes) for tensor in self.tensors]

    @property
    def lacks(self) -> bool:
        return not self.ended and self.made < min(self.wanted, self.slots)

    def want(self, slots: int) -> None:
        if slots > self.wanted:
            with self.changed:
                self.wanted = slots
                self.changed.notify_all()

    def end(self) -> None:
        self.tensors = []  # here and not in the thread: a page of what is gone by then is made for nothing, no worse
        with self.changed:
            self.ended = True
            self.changed.notify_all()


def _make(cache: _Cache) -> None:
    """Without a call of torch's: an interpreter that ends ends this thread too, and in torch that ends in an abort."""
    while True:
        with cache.changed:
            if not cache.lacks:  # the first of them beside what else a start does
                _yield_to_all()
                cache.wanted = max(cache.wanted, cache.later)
                cache.changed.notify_all()
            cache.changed.wait_for(lambda: cache.lacks or cache.ended)
            if cache.ended:
                return
            first, last = cache.made, min(cache.made + PIECE_TOKENS, cache.slots)
        done = all(_populate(at + first * each, (last - first) * each) for at, each in cache.places)
        with cache.changed:
            cache.made, cache.ended = last if done else first, cache.ended or not done
            cache.changed.notify_all()


def _yield_to_all() -> None:
    """From now on this thread runs where no other wants to."""
    with suppress(OSError, AttributeError):  # where that is not allowed, or not Linux
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _populate(at: int, size: int) -> bool:
    """Make the pages of `size` bytes from the address `at` on; whether the system can."""
    first = at // _PAGE * _PAGE
    failed: int = _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(at + size - first), _MADV_POPULATE_WRITE)
    return not failed


_libc = ctypes.CDLL(None)
