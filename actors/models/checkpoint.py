"""The tensors of a folder's safetensors files, read slice by slice.

Knows where each lies (`headers`). Knows nothing of models. A tensor is read to where it is to lie, or
mapped a window at a time and unmapped at once: reading adds a window, not the file, to the memory of the process.
"""

import mmap
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from actors.models.headers import FLOATS, TYPES, files
from cluster.errors import ModelInvalid
from cluster.storage.tensors import ITEM_BYTES, RETAKE, Stored, headers

CHUNK_BYTES = 2**20  # of what is changed on the way: it stays in the second cache
WINDOW_BYTES = 32 * 2**20  # far over the cost of a map call, far under any memory limit


class Checkpoint:
    """All tensors of a folder by name. Raises ModelInvalid for whatever is missing, broken or hostile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Stored] = {}
        for file in files(path):
            for name, stored in headers(file):
                if name in self.tensors:
                    raise ModelInvalid(str(file), f"{name} is in {self.tensors[name].file.name} too", RETAKE)
                self.tensors[name] = stored

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def dtype(self, names: Iterable[str]) -> torch.dtype:
        """The commonest floating dtype of these tensors; float32 if none is floating."""
        sizes: dict[str, int] = {}
        for name in names:
            stored = self.tensors[name]
            sizes[stored.dtype] = sizes.get(stored.dtype, 0) + stored.bytes
        known = [dtype for dtype in sizes if dtype in FLOATS]
        return FLOATS[max(known, key=sizes.__getitem__)] if known else torch.float32

    def bytes_each(self, name: str) -> int:
        """Bytes of one element."""
        return ITEM_BYTES[self._stored(name).dtype]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._stored(name).shape

    def read(
        self,
        name: str,
        into: torch.Tensor,
        shape: tuple[int, ...],
        first: slice | None = None,
        last: slice | None = None,
    ) -> int:
        """Copy tensor `name` of `shape`, cut to `first` of its first and `last` of its last dimension, into `into`.

        Converts the dtype on the way. Returns the bytes of the file that were used.
        """
        stored = self._stored(name, shape)
        if stored.dtype not in FLOATS:
            raise ModelInvalid(
                str(stored.file), f"{name} is {stored.dtype}", "take float16, bfloat16 or float32 weights"
            )
        if not shape:
            return self._read_scalar(stored, into)
        taken = 0
        start, stop, _ = (first or slice(None)).indices(shape[0])
        if last is not None and last.indices(shape[-1]) == (0, shape[-1], 1):
            last = None
        if last is None and into.dtype is FLOATS[stored.dtype] and into.device.type == "cpu" and into.is_contiguous():
            return _fill(stored, start, into)
        for row, window in _chunks(stored, start, stop):
            piece = window if last is None else window[..., last]
            into[row - start : row - start + len(window)].copy_(piece)
            taken += piece.numel() * ITEM_BYTES[stored.dtype]
        return taken

    def rows(
        self, name: str, shape: tuple[int, ...] | None = None, first: slice | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, rows) of tensor `name`, a window at a time and in the type that it is stored in.

        A window lives as long as its tensor does; it is mapped, not read.
        """
        stored = self._stored(name, shape)
        if stored.dtype not in TYPES or not stored.shape:
            raise ModelInvalid(str(stored.file), f"{name} is {stored.dtype} {list(stored.shape)}", "take other weights")
        start, stop, _ = (first or slice(None)).indices(stored.shape[0])
        return _windows(stored, start, stop)

    def piece(
        self, name: str, shape: tuple[int, ...] | None = None, first: slice | None = None, last: slice | None = None
    ) -> torch.Tensor:
        """A copy of tensor `name`, cut like `read` cuts it, in the type that it is stored in."""
        cut = slice(None) if last is None else last
        found = [window[..., cut].clone() for _, window in self.rows(name, shape, first)]
        return found[0] if len(found) == 1 else torch.cat(found) if found else torch.empty(0)

    def _read_scalar(self, stored: Stored, into: torch.Tensor) -> int:
        single = Stored(stored.file, stored.dtype, (1,), stored.offset)
        for _, window in _windows(single, 0, 1):
            into.copy_(window[0])
        return stored.bytes

    def _stored(self, name: str, shape: tuple[int, ...] | None = None) -> Stored:
        if name not in self.tensors:
            raise ModelInvalid(str(self.path), f"the weights lack {name}", "fetch all files of the model")
        stored = self.tensors[name]
        if shape is not None and stored.shape != shape:
            raise ModelInvalid(
                str(stored.file), f"{name} has shape {list(stored.shape)}, config.json asks for {list(shape)}",
                "take config.json and weights of the same model",
            )  # fmt: skip
        return stored


class Listed(Checkpoint):
    """As what is loaded from it would find it, without reading any of it."""

    def read(
        self,
        name: str,
        into: torch.Tensor,  # noqa: ARG002
        shape: tuple[int, ...],
        first: slice | None = None,  # noqa: ARG002
        last: slice | None = None,  # noqa: ARG002
    ) -> int:
        self._stored(name, shape)
        return 0

    def rows(
        self,
        name: str,
        shape: tuple[int, ...] | None = None,
        first: slice | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[int, torch.Tensor]]:
        self._stored(name, shape)
        return iter(())


def _fill(stored: Stored, start: int, into: torch.Tensor) -> int:
    """Read rows from `start` on to where they are to lie; the bytes read. Twice as fast as copying from a mapping."""
    size = into.numel() * into.element_size()
    if size:
        with stored.file.open("rb", buffering=0) as file:
            begin = stored.offset + start * (stored.bytes // stored.shape[0])
            _read(stored, file.fileno(), into.view(-1).view(torch.uint8), begin)
    return size


def _chunks(stored: Stored, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, rows), some at a time, in a buffer that the next ones overwrite."""
    row_bytes = stored.bytes // max(stored.shape[0], 1)
    if not row_bytes or stop <= start:
        return
    step = max(CHUNK_BYTES // row_bytes, 1)
    buffer = torch.empty(min(step, stop - start) * row_bytes, dtype=torch.uint8)
    with stored.file.open("rb", buffering=0) as file:
        for row in range(start, stop, step):
            rows = min(step, stop - row)
            part = buffer[: rows * row_bytes]
            _read(stored, file.fileno(), part, stored.offset + row * row_bytes)
            yield row, part.view(TYPES[stored.dtype]).view(rows, *stored.shape[1:])


def _read(stored: Stored, file: int, into: torch.Tensor, offset: int) -> None:
    """Fill the bytes of `into` from `offset` on. Raises ModelInvalid where the file has grown shorter."""
    left = into.numpy().data
    while left:
        count = os.preadv(file, [left], offset)
        if not count:
            raise ModelInvalid(str(stored.file), "ended while it was read", RETAKE)
        left, offset = left[count:], offset + count


def _windows(stored: Stored, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, rows) of the mapped tensor, at most WINDOW_BYTES at a time."""
    row_bytes = stored.bytes // max(stored.shape[0], 1)
    if not row_bytes:
        return
    step = max(WINDOW_BYTES // row_bytes, 1)
    with stored.file.open("rb") as file:
        for row in range(start, stop, step):
            rows = min(step, stop - row)
            begin = stored.offset + row * row_bytes
            base = begin - begin % mmap.ALLOCATIONGRANULARITY
            mapped = mmap.mmap(file.fileno(), begin - base + rows * row_bytes, access=mmap.ACCESS_READ, offset=base)
            yield row, _view(mapped, begin - base, TYPES[stored.dtype], (rows, *stored.shape[1:]))


def _view(mapped: mmap.mmap, skip: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "not writable": it is only read
        flat = torch.frombuffer(mapped, dtype=torch.uint8, count=len(mapped) - skip, offset=skip)
    if skip % dtype.itemsize:  # the format does not promise alignment
        flat = flat.clone()
    return flat.view(dtype).view(shape)
