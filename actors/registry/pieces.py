"""A large file as pieces of content: cut where its tensors begin, so that versions share the tensors that are equal.

Knows the list of pieces and its text, which stands in a version's tree in the file's place. Knows no store's details
and no history.
"""

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.registry import finite
from cluster.errors import ModelInvalid, NotFound, Unavailable
from cluster.storage import Blobs
from cluster.storage.blobs import quick_of
from cluster.storage.tensors import ITEM_BYTES, headers

PIECE = 4 << 20  # bytes: what a changed number costs at most, and a thousandth of a blob's own cost
SUFFIX = ".pieces"
FORMAT = 1
CHECKS = "blake3"  # what `Quick` is called in a list
THREADS = max(4, min(16, os.cpu_count() or 1))  # that hash and write: SHA-256 leaves Python's lock
_threads = threading.local()

Progress = Callable[[int], None]  # told of bytes that are done
Read = Callable[[str, bytearray, str], memoryview]  # a piece, checked: its digest, memory that may be used, its BLAKE3
Quick = tuple[str, ...]  # the BLAKE3 of each piece, to check it by; none of what was pushed before these were kept


def quietly(_done: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file and the digests of its pieces, each of PIECE bytes but for the last."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[str, ...]
    quick: Quick = field(default=(), compare=False)

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A file of `size` bytes: `head` first, which is all of it where it has no tensors, then those in order."""

    size: int
    head: tuple[str, ...]
    tensors: tuple[Tensor, ...] = ()
    quick: Quick = field(default=(), compare=False)  # of the head

    @property
    def head_size(self) -> int:
        """In bytes."""
        return self.size - sum(tensor.size for tensor in self.tensors)

    def digests(self) -> Iterator[str]:
        """In the order of the file."""
        yield from self.head
        for tensor in self.tensors:
            yield from tensor.pieces

    def spans(self) -> Iterator[tuple[int, int, str, str]]:
        """First byte, number of bytes, digest and BLAKE3 of each piece; the last empty where it is not known."""
        at = 0
        parts = [
            (self.head_size, self.head, self.quick),
            *((each.size, each.pieces, each.quick) for each in self.tensors),
        ]
        for size, digests, quick in parts:
            for start, digest, check in zip(range(0, size, PIECE), digests, quick or ("",) * len(digests), strict=True):
                yield at + start, min(PIECE, size - start), digest, check
            at += size

    def text(self) -> bytes:
        """What stands in a version's tree: a line a tensor, so that a diff of two versions names those that changed."""
        lines = [json.dumps({"format": FORMAT, "size": self.size, "head": list(self.head)} | _checks(self.quick))]
        lines += [
            json.dumps(
                {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "pieces": list(t.pieces)} | _checks(t.quick)
            )
            for t in self.tensors
        ]
        return "\n".join([*lines, ""]).encode()


def parse(name: str, text: bytes) -> Pieces:
    """`Pieces.text` again. Raises ModelInvalid, as a tree may come from somewhere else."""
    try:
        first, *rest = [json.loads(line) for line in text.decode("utf-8").splitlines()]
        if first["format"] != FORMAT:
            raise ValueError(f"format {first['format']}")
        tensors = tuple(_tensor(entry) for entry in rest)
        head = _digests(first["head"])
        made = Pieces(_whole(first["size"]), head, tensors, _quick(first, head))
        wanted = [(made.head_size, made.head), *((tensor.size, tensor.pieces) for tensor in tensors)]
        if made.head_size < 0 or any(len(digests) != -(-size // PIECE) for size, digests in wanted):
            raise ValueError("the number of pieces does not fit the sizes")
    except (ValueError, KeyError, TypeError, RecursionError) as wrong:
        problem = f"is no list of pieces ({wrong or type(wrong).__name__})"
        raise ModelInvalid(name, problem, "push the version again") from None
    return made


def cut(file: Path, blobs: Blobs, progress: Progress) -> tuple[Pieces, int, dict[str, int]]:
    """Store what of `file` is not stored yet; its pieces, and how many bytes were new. Raises ModelInvalid.

    Last, by tensor, how many values are no finite numbers, of those that have any.
    """
    declared = sorted(headers(file), key=lambda item: item[1].offset) if file.suffix == ".safetensors" else []
    size = file.stat().st_size
    head = min((stored.offset for _, stored in declared), default=size)
    spans = [(0, head, ""), *((stored.offset, stored.bytes, stored.dtype) for _, stored in declared)]
    with file.open("rb") as opened, ThreadPoolExecutor(THREADS) as pool:
        descriptor = opened.fileno()

        def keep(span: tuple[int, int, str]) -> tuple[str, int, int, str]:
            at, count, dtype = span
            content = memoryview(_room())[:count]
            if os.preadv(descriptor, [content], at) != count:
                raise ModelInvalid(str(file), "became shorter while it was read", "push it again once it is whole")
            digest, new = blobs.put(content)
            progress(count)
            return digest, count if new else 0, finite.wrong(content, dtype), quick_of(content)

        places = [
            (at + start, min(PIECE, count - start), dtype)
            for at, count, dtype in spans for start in range(0, count, PIECE)
        ]  # fmt: skip
        kept = iter(list(pool.map(keep, places)))
    found = [[next(kept) for _ in range(0, count, PIECE)] for _, count, _ in spans]
    new = sum(count for pieces in found for _, count, *_ in pieces)
    digests = [tuple(digest for digest, *_ in pieces) for pieces in found]
    checks = [tuple(check for *_, check in pieces) for pieces in found]
    wrong = {name: sum(each for *_, each, _ in pieces) for (name, _), pieces in zip(declared, found[1:], strict=True)}
    tensors = [
        Tensor(name, stored.dtype, stored.shape, pieces, quick)
        for (name, stored), pieces, quick in zip(declared, digests[1:], checks[1:], strict=True)
    ]
    made = Pieces(size, digests[0], tuple(tensors), checks[0])
    return made, new, {name: count for name, count in wrong.items() if count}


def join(pieces: Pieces, read: Read, file: Path, progress: Progress) -> None:
    """Write `file` from its pieces. Raises what `read` does, such as `Blobs.read`."""
    with file.open("wb") as opened, ThreadPoolExecutor(THREADS) as pool:
        os.truncate(opened.fileno(), pieces.size)
        descriptor = opened.fileno()

        def put(span: tuple[int, int, str, str]) -> None:
            at, count, digest, check = span
            content = read(digest, _room(), check)
            if len(content) != count:
                raise Unavailable(str(file), f"the piece {digest} has {len(content)} bytes of {count}")
            os.pwrite(descriptor, content, at)
            progress(count)

        for _ in pool.map(put, pieces.spans()):
            pass


@contextmanager
def needed(what: str, store: str) -> Iterator[None]:
    """Names what is read inside where a piece of it is not as it was pushed.

    Raises ModelInvalid for one that is missing from `store`, and Unavailable for one that was changed.
    """
    try:
        yield
    except NotFound as wrong:
        remedy = "push it again, which adds what is missing; `strata models fsck` names all that is"
        raise ModelInvalid(what, f"its content {wrong.name} is missing from {store}", remedy) from None
    except Unavailable as wrong:
        raise Unavailable(what, f"{wrong.what}: {wrong.reason}") from None


def _room() -> bytearray:
    """Memory for a piece, the same for all that a thread works on: fresh memory costs as much as a copy."""
    if not hasattr(_threads, "room"):
        _threads.room = bytearray(PIECE)
    room: bytearray = _threads.room
    return room


def changed(before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names of the tensors that were added, that are gone, and that are others now."""
    old, new = ({tensor.name: tensor for tensor in tensors} for tensors in (before, after))
    return (
        [name for name in new if name not in old],
        [name for name in old if name not in new],
        [name for name in new if name in old and new[name] != old[name]],
    )


def _tensor(entry: dict[str, Any]) -> Tensor:
    name, dtype, shape = entry["name"], entry["dtype"], tuple(_whole(number) for number in entry["shape"])
    if not isinstance(name, str) or dtype not in ITEM_BYTES or len(shape) > 8:
        raise ValueError(f"the tensor {name!r}")
    pieces = _digests(entry["pieces"])
    return Tensor(name, dtype, shape, pieces, _quick(entry, pieces))


def _quick(entry: dict[str, Any], pieces: tuple[str, ...]) -> Quick:
    found = _digests(entry.get(CHECKS, []))
    if found and len(found) != len(pieces):
        raise ValueError(f"as many as {CHECKS}")
    return found


def _checks(quick: Quick) -> dict[str, list[str]]:
    return {CHECKS: list(quick)} if quick else {}


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**63:
        raise ValueError(f"the number {number!r}")
    return number


def _digests(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(
        isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in found
    ):
        raise ValueError("a digest")
    return tuple(found)
