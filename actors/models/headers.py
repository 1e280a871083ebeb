"""Which safetensors files a model's folder has, and the types of torch that they name.

How a file declares its tensors stands in `cluster.storage.tensors`.
"""

import json
from pathlib import Path

import torch

from cluster.errors import ModelInvalid
from cluster.storage.tensors import RETAKE

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TYPES = FLOATS | {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn,
}  # fmt: skip


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
