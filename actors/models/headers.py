"""What a folder's safetensors files declare: which tensors, of what type and shape, at which bytes.

Knows the file format and trusts nothing in it. Reads headers, never a tensor.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.errors import ModelInvalid

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TYPES = FLOATS | {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn,
}  # fmt: skip
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


def files(path: Path) -> list[Path]:
    """The safetensors files of a folder, those of its index if it has one. Raises ModelInvalid."""
    index = path / "model.safetensors.index.json"
    found = _indexed(index) if index.is_file() else sorted(path.glob("*.safetensors"))
    if not found:
        unsafe = any(path.glob("*.bin")) or any(path.glob("*.pt*"))
        problem = "holds pickled weights, which can run code" if unsafe else "holds no safetensors file"
        raise ModelInvalid(str(path), problem, "save the model with save_pretrained(safe_serialization=True)")
    return found


def _indexed(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelInvalid(str(index), "is not an index of weights", RETAKE) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelInvalid(str(index), f"names the file {name!r}", "an index names safetensors files beside it")
    return [index.parent / name for name in sorted(names)]


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
