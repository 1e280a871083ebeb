"""Memory for weights and caches: in huge pages where the system gives them, and not resident before it is written.

A weight in pages of 4 KiB makes the processor look up an address for each of them: on one core, 37 GB/s become 31.
What is asked for one after the other lies one after the other, as a step reads it.
"""

import math
import mmap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from cluster.errors import ModelInvalid

ARENA = 64 << 20  # weights lie side by side in pieces of address space as large as this, so that few pages are cut
HUGE = 2 << 20
LINE = 64
_NO_ROOM = ("allocate memory", "out of memory", "storage size")  # how torch and the system say it


def zeros(shape: Sequence[int], dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
    """Like `torch.zeros`, which would write every page at once: on CPU a page is made when it is first touched."""
    if torch.device(device).type != "cpu":
        return torch.zeros(*shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    flat = torch.from_numpy(np.zeros(size + LINE, np.uint8))
    first = -flat.data_ptr() % LINE  # a vector that crosses a line's border is two loads
    return flat[first : first + size].view(dtype).view(*shape)


def empty(shape: Sequence[int], dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
    """Like `torch.empty`, for what lives as long as its model: on CPU side by side with what was asked for before."""
    if torch.device(device).type != "cpu" or 0 in shape:
        return torch.empty(*shape, dtype=dtype, device=device)
    return room(math.prod(shape) * dtype.itemsize).view(dtype).view(*shape)


def room(size: int) -> torch.Tensor:
    """uint8 [`size`] in huge pages, on a cache line's border."""
    with _lock:
        taken = _arena[0].take(size) if _arena else None
        if taken is None:
            _arena[:] = [_Arena(max(ARENA, size))]
            taken = _arena[0].take(size)
    assert taken is not None
    return taken


@contextmanager
def enough(path: str) -> Iterator[None]:
    """Raises ModelInvalid where the system has not the memory that the model in the folder `path` asks for."""
    try:
        yield
    except (MemoryError, OSError, OverflowError, RuntimeError) as error:
        kinds = isinstance(error, MemoryError | OverflowError)
        if not kinds and not any(words in str(error).lower() for words in _NO_ROOM):
            raise
        what = "what its config.json describes does not fit this machine's memory"
        remedy = "correct config.json, or use more ranks, quantization or a larger machine"
        raise ModelInvalid(path, what, remedy) from error


class _Arena:
    """Address space handed out piece by piece, in order; a piece keeps all of it alive."""

    def __init__(self, size: int) -> None:
        memory = mmap.mmap(-1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        self.whole, self.used = whole[-whole.data_ptr() % HUGE :], 0

    def take(self, size: int) -> torch.Tensor | None:
        first = -(-self.used // LINE) * LINE
        if first + size > self.whole.numel():
            return None
        self.used = first + size
        return self.whole[first : self.used]


_lock = threading.Lock()
_arena: list[_Arena] = []
