"""Sums over the ranks of one machine through shared memory: ours in place of DeepSpeed's where the kernels run.

DeepSpeed's spins for as long as it waits and holds the interpreter lock meanwhile; this one sleeps after a moment, so
that what shares the ranks' cores gets to run, and it is called from the compiled step.
"""

import ctypes
import mmap
import os
from ctypes import addressof
from pathlib import Path

import torch

from actors.models.kernels import interface
from actors.models.kernels.operations import TYPES

PATIENCE_NANOSECONDS = 50_000  # spinning for longer than some wake-ups take would cost more than it saves
MOST_RANKS = 64  # kMostRanks of collective.cpp


class Collective:
    """One rank's end. Every rank makes the same calls in the same order."""

    def __init__(self, library: interface.Library, memory: mmap.mmap, rank: int, size: int) -> None:
        self._library, self._memory = library, memory
        self._mapped = ctypes.c_char.from_buffer(memory)
        self._own = interface.Collective(rank, size, addressof(self._mapped), PATIENCE_NANOSECONDS, 0)
        self.size, self.address = size, addressof(self._own)

    @classmethod
    def open(cls, path: Path, rank: int, size: int) -> "Collective | None":
        """Map the file that `make` made; None where there is none or the kernels cannot be had."""
        library = interface.loaded()
        if library is None:
            return None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return cls(library, mmap.mmap(descriptor, 0), rank, size)
        finally:
            os.close(descriptor)

    @staticmethod
    def make(path: Path, size: int) -> None:
        """The zeroed memory of `size` ranks, as a file that only this user reads; none where it has no room."""
        library = interface.loaded()
        if library is None or size > MOST_RANKS:
            return
        needed = ctypes.c_int64()
        library.collective_bytes(size, addressof(needed))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, needed.value)  # a full /dev/shm is told now, not by a bus error later
        except OSError:
            path.unlink()
        finally:
            os.close(descriptor)

    def takes(self, tensor: torch.Tensor) -> bool:
        """Whether `all_reduce` can sum it."""
        return tensor.dtype in TYPES and tensor.device.type == "cpu"

    def all_reduce(self, partial: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place where `partial` lies in one piece."""
        partial = partial.contiguous()
        self._library.all_reduce(self.address, TYPES[partial.dtype], partial.data_ptr(), partial.numel())
        return partial

    def all_gather(self, piece: torch.Tensor) -> torch.Tensor:
        """All ranks' float32 pieces [rows, width] side by side."""
        piece = piece.contiguous()
        rows, width = piece.shape
        whole = piece.new_empty((rows, width * self.size))
        self._library.all_gather(self.address, piece.data_ptr(), whole.data_ptr(), rows, width)
        return whole
