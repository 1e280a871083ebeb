"""Weight files made of what the store has: with tensors of several versions, or with tensors that were computed.

Knows lists of pieces and the bytes behind them, one tensor at a time. Knows no versions and no strategy.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from actors.registry.merging import Change, bytes_of, tensor_of
from actors.registry.pieces import PIECE, THREADS, Pieces, Progress, Quick, Tensor
from cluster.errors import ModelInvalid, Unavailable
from cluster.storage import Blobs
from cluster.storage.blobs import quick_of
from cluster.storage.tensors import ITEM_BYTES

if TYPE_CHECKING:
    import torch


def read(tensor: Tensor, blobs: Blobs) -> "torch.Tensor":
    """Its values. Raises what `Blobs.get` does."""
    return tensor_of(_content(tensor.pieces, tensor.size, blobs), tensor.dtype, tensor.shape)


def computed(
    file: Pieces, names: Collection[str], change: Change, blobs: Blobs, progress: Progress
) -> tuple[Pieces, int]:
    """`file` with the tensors of these names changed, each in its own type, and how many bytes were new."""
    tensors, stored = [], 0
    progress(file.head_size)
    for tensor in file.tensors:
        if tensor.name in names:
            own = read(tensor, blobs)
            pieces, quick, new = _put(bytes_of(change(tensor.name, own).to(own.dtype)), blobs)
            tensors.append(Tensor(tensor.name, tensor.dtype, tensor.shape, pieces, quick))
            stored += new
        else:
            tensors.append(tensor)
        progress(tensor.size)
    return Pieces(file.size, file.head, tuple(tensors), file.quick), stored


def mixed(
    heads: Iterable[Pieces], tensors: Mapping[str, Tensor], blobs: Blobs, progress: Progress
) -> tuple[Pieces, int]:
    """A file of these tensors, and how many bytes were new. Its head is that of the first file that it fits.

    Of another it is made, and says of itself (`__metadata__`) what the first one does. Raises ModelInvalid.
    """
    files = list(heads)
    kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    for file in files:
        if {each.name: (each.dtype, each.shape) for each in file.tensors} == kinds:
            progress(file.size)
            return Pieces(file.size, file.head, tuple(tensors[each.name] for each in file.tensors), file.quick), 0
    # the order in which the safetensors library writes them, which keeps each aligned to its type
    ordered = tuple(sorted(tensors.values(), key=lambda each: (-ITEM_BYTES[each.dtype], each.name)))
    head = _head(ordered, _said(files[0], blobs))
    pieces, quick, new = _put(memoryview(head), blobs)
    size = len(head) + sum(each.size for each in ordered)
    progress(size)
    return Pieces(size, pieces, ordered, quick), new


def _head(tensors: Iterable[Tensor], said: Any) -> bytes:
    """What stands before the tensors of a safetensors file, https://github.com/huggingface/safetensors#format."""
    entries: dict[str, Any] = {"__metadata__": said} if said else {}
    at = 0
    for each in tensors:
        entries[each.name] = {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": [at, at + each.size]}
        at += each.size
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _said(file: Pieces, blobs: Blobs) -> Any:
    try:
        return json.loads(_content(file.head, file.head_size, blobs)[8:]).get("__metadata__")
    except (ValueError, AttributeError, RecursionError) as wrong:
        raise ModelInvalid("a safetensors file", f"its head is no JSON object ({wrong})", "push it again") from None


def _content(pieces: tuple[str, ...], size: int, blobs: Blobs) -> bytearray:
    """These pieces in one. Raises Unavailable where they are another number of bytes."""
    content, at = bytearray(size), 0
    with ThreadPoolExecutor(THREADS) as pool:
        for digest, piece in zip(pieces, pool.map(blobs.get, pieces), strict=True):
            content[at : at + len(piece)] = piece
            at += len(piece)
            if at > size or (len(piece) < PIECE and at < size):
                raise Unavailable("the store", f"the piece {digest} has {len(piece)} bytes, which is another number")
    return content


def _put(content: memoryview, blobs: Blobs) -> tuple[tuple[str, ...], Quick, int]:
    """Its pieces, what they are checked by, and how many bytes of them were new."""
    parts = [content[at : at + PIECE] for at in range(0, len(content), PIECE)]
    with ThreadPoolExecutor(THREADS) as pool:
        kept, quick = list(pool.map(blobs.put, parts)), tuple(pool.map(quick_of, parts))
    new = sum(len(part) for part, (_, is_new) in zip(parts, kept, strict=True) if is_new)
    return tuple(digest for digest, _ in kept), quick, new
