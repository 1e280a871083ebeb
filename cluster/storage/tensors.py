"""What a safetensors file declares: which tensors, of what type and shape, at which bytes.

Knows the file format and trusts nothing in it. Reads headers, never a tensor, and knows no types but their sizes.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ModelInvalid

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "C64": 8, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
RETAKE = "fetch the file again"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor lies: `offset` counts from the start of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def headers(file: Path) -> list[tuple[str, Stored]]:
    """The tensors that a file declares, after checking that they tile its data exactly. Raises ModelInvalid."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise ModelInvalid(str(file), f"its header says {length} bytes of {size}", RETAKE)
            header = json.loads(opened.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise ModelInvalid(str(file), error.strerror or "cannot be read", RETAKE) from error
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(str(file), "its header is not JSON", RETAKE) from error
    if not isinstance(header, dict):
        raise ModelInvalid(str(file), "its header is not a JSON object", RETAKE)
    header.pop("__metadata__", None)
    found = [_declared(file, name, entry) for name, entry in header.items()]
    _check_tiling(file, found, size - 8 - length)
    return [
        (name, Stored(file, dtype, shape, 8 + length + begin))
        for name, dtype, shape, begin, _ in found
    ]  # fmt: skip


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name twice")
    return made


def _declared(file: Path, name: str, entry: Any) -> tuple[str, str, tuple[int, ...], int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end))
        fits = whole and len(shape) <= 8 and end - begin == math.prod(shape) * ITEM_BYTES[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelInvalid(str(file), f"its header describes {name!r} wrongly", RETAKE) from error
    if not fits:
        raise ModelInvalid(str(file), f"the size of {name!r} does not fit its shape", RETAKE)
    return name, dtype, tuple(shape), begin, end


def _check_tiling(file: Path, found: list[tuple[str, str, tuple[int, ...], int, int]], data_bytes: int) -> None:
    """The format's own rule: tensors lie one after the other with neither gap nor overlap, up to the end."""
    reached = 0
    for name, _, _, begin, end in sorted(found, key=lambda item: item[3:]):
        if begin != reached:
            raise ModelInvalid(str(file), f"{name!r} overlaps another tensor or leaves a gap", RETAKE)
        reached = end
    if reached != data_bytes:
        raise ModelInvalid(str(file), f"holds {data_bytes} bytes of tensors where its header says {reached}", RETAKE)
