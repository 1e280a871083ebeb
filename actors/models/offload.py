"""Copies of KV blocks outside the cache: in a file where the cache lies in main memory, in main memory for a GPU's.

Owns the bytes of one rank. Knows tensors [slots, ...] and numbered places. Knows nothing of what is in a block.
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from cluster.errors import SettingsInvalid

_MOST_PIECES = 512  # of memory that one system call reads or writes; Linux takes 1024

Moves = Sequence[tuple[int, int]]


class Offload(Protocol):
    """Where blocks go and come back from."""

    def save(self, saves: Moves) -> tuple[int, ...]:
        """Copy (block, place) pairs out; the places where that failed, which hold nothing now."""
        ...

    def load(self, loads: Moves) -> None:
        """Copy (place, block) pairs in. Raises OSError where the store fails."""
        ...


def offload(tensors: Sequence[torch.Tensor], block_tokens: int, places: int, folder: str | None) -> Offload:
    """A store of `places` for the blocks of `tensors`. Raises SettingsInvalid where there is no room for it."""
    if tensors[0].device.type == "cpu":
        return _File(tensors, block_tokens, places, folder)
    return Host(tensors, block_tokens, places)


class _File:
    """A file without a name that only this process can read, its room taken at once: no write meets a full disk."""

    def __init__(self, tensors: Sequence[torch.Tensor], block_tokens: int, places: int, folder: str | None) -> None:
        self._flat = [memoryview(tensor.view(-1).view(torch.uint8).numpy().data) for tensor in tensors]
        self._pieces = [
            len(flat) // len(tensor) * block_tokens for flat, tensor in zip(self._flat, tensors, strict=True)
        ]
        self._size = sum(self._pieces)
        where, room = folder or tempfile.gettempdir(), max(1, places * self._size)
        try:
            self._file, name = tempfile.mkstemp(prefix="strata-kv-", dir=where)
            weakref.finalize(self, os.close, self._file)
            Path(name).unlink()
            os.posix_fallocate(self._file, 0, room)
        except OSError as error:
            raise SettingsInvalid(
                "limits.kv_offload_gb", f"{room / 1e9:.2f} GB in {where} ({error.strerror})",
                "name a folder with room in limits.kv_offload_folder, or take less",
            ) from error  # fmt: skip

    def save(self, saves: Moves) -> tuple[int, ...]:
        lost = []
        for block, place in saves:
            try:
                self._each(os.pwritev, block, place)
            except OSError:
                lost.append(place)
        return tuple(lost)

    def load(self, loads: Moves) -> None:
        for place, block in loads:
            self._each(os.preadv, block, place)

    def _each(self, call: Callable[[int, list[memoryview], int], int], block: int, place: int) -> None:
        parts = [flat[block * size : (block + 1) * size] for flat, size in zip(self._flat, self._pieces, strict=True)]
        at = place * self._size
        while parts:
            count = call(self._file, parts[:_MOST_PIECES], at)
            if not count:
                raise OSError("the store of KV blocks ended early")
            at += count
            while parts and count >= len(parts[0]):
                count -= len(parts.pop(0))
            if count:
                parts[0] = parts[0][count:]


class Host:
    """Main memory, pinned where a GPU copies to it."""

    def __init__(self, tensors: Sequence[torch.Tensor], block_tokens: int, places: int) -> None:
        self._tensors, self._block_tokens = tensors, block_tokens
        pinned = tensors[0].device.type == "cuda"
        self._kept = [
            torch.empty((places * block_tokens, *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=pinned)
            for tensor in tensors
        ]

    def save(self, saves: Moves) -> tuple[int, ...]:
        size = self._block_tokens
        for block, place in saves:
            for tensor, kept in zip(self._tensors, self._kept, strict=True):
                kept[place * size : (place + 1) * size].copy_(
                    tensor[block * size : (block + 1) * size], non_blocking=True
                )
        self._wait()  # a load may read what was just saved
        return ()

    def load(self, loads: Moves) -> None:
        size = self._block_tokens
        for place, block in loads:
            for tensor, kept in zip(self._tensors, self._kept, strict=True):
                tensor[block * size : (block + 1) * size].copy_(
                    kept[place * size : (place + 1) * size], non_blocking=True
                )
        self._wait()

    def _wait(self) -> None:
        if self._tensors[0].device.type == "cuda":
            torch.cuda.synchronize(self._tensors[0].device)
