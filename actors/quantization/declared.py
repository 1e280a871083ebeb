"""What a folder's config.json says of how its weights are quantized.

Knows the words of compressed-tensors, GPTQ, AWQ and fp8 folders, and says of every other what was found and what
works. Reads no tensor.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ModelInvalid, shorten

WORKS = "compressed-tensors (int4, int8, W8A8, fp8), GPTQ (4, 8 bits), AWQ (gemm) and fp8 folders are read"
FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense")


@dataclass(frozen=True, slots=True)
class Declared:
    """`method` as config.json names it; `zero_offset` is what GPTQ took off a zero before it was stored.

    `kinds` are the (bits, columns that share a scale) of integers, -1 for a whole row and None where it is not said;
    none where each layer may have its own. `bits_key` is where the method says the bits.
    """

    method: str
    zero_offset: int = 0
    block: tuple[int, int] | None = None  # rows and columns that share a scale in an fp8 folder
    kinds: tuple[tuple[int, int | None], ...] = ()
    bits_key: str = "bits"


def declaration(path: Path) -> dict[str, Any] | None:
    """The quantization_config of a folder's config.json, None where it has none."""
    raw = json.loads((path / "config.json").read_text("utf-8"))  # read_config has judged it before
    found = raw.get("quantization_config") or raw.get("compression_config")
    if found is None and isinstance(raw.get("text_config"), dict):
        found = raw["text_config"].get("quantization_config")
    if found is not None and not isinstance(found, dict):
        raise _malformed(path, "quantization_config", found)
    return found


def declared(path: Path) -> Declared | None:
    """How the weights of a folder are quantized. Raises ModelInvalid for a way that is not read here."""
    said = declaration(path)
    if said is None:
        return None
    method = str(said.get("quant_method", "nothing"))
    try:
        return METHODS[method](path, said)
    except KeyError:
        raise _refused(path, f"quantized by {shorten(method)!r}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise _refused(path, f"quantization_config of {method} is malformed: {shorten(str(error))}") from error


def _compressed(path: Path, said: dict[str, Any]) -> Declared:
    if str(said.get("format")) not in FORMATS:
        raise _refused(path, f"compressed-tensors in the format {shorten(str(said.get('format')))!r}")
    sparse = _object(path, said, "sparsity_config").get("format", "dense")
    if sparse != "dense":
        raise _refused(path, f"sparse weights in the format {shorten(str(sparse))!r}")
    _refuse_transforms(path, said)
    kinds = []
    groups = _object(path, said, "config_groups")
    for name in groups:
        weights = _object(path, _object(path, groups, name, "config_groups."), "weights", f"config_groups.{name}.")
        kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
        if (kind, bits) not in (("int", 4), ("int", 8), ("float", 8)):
            raise _refused(path, f"{name} of quantization_config has {kind} weights of {bits} bits")
        if kind == "int" and weights:
            kinds.append((bits, _columns(weights)))
    return Declared("compressed-tensors", kinds=tuple(kinds), bits_key="num_bits")


def _refuse_transforms(path: Path, said: dict[str, Any]) -> None:
    """Rotations of weights are in the weights; those of what is multiplied with them would have to be made here."""
    groups = _object(path, _object(path, said, "transform_config"), "config_groups", "transform_config.")
    for name in groups:
        for one in _object(path, groups, name, "transform_config.config_groups.").get("apply") or ():
            location = one.get("location")
            if location not in ("weight_input", "weight_output"):
                raise _refused(path, f"a transform of {shorten(str(location))} ({shorten(name)})")


def _object(path: Path, holder: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """The object at `key`; an empty one where there is none. Raises ModelInvalid, with the key, for anything else."""
    found = holder.get(key) or {}
    if not isinstance(found, dict):
        raise _malformed(path, f"{where}{key} of quantization_config", found)
    return found


def _columns(weights: dict[str, Any]) -> int | None:
    """Columns that share a scale by compressed-tensors' rules: a strategy counts more than a group_size."""
    if weights.get("strategy") in ("channel", "tensor"):
        return -1
    return _whole(weights.get("group_size"))


def _whole(size: Any) -> int | None:
    if size is not None and type(size) is not int:
        raise ValueError(f"group_size is {size!r}")
    return size


def _kinds(said: dict[str, Any], bits: int, size: Any) -> tuple[tuple[int, int | None], ...]:
    """What GPTQ's and AWQ's writers say of every layer, unless GPTQModel or AutoRound excepted some."""
    return () if said.get("dynamic") or said.get("extra_config") else ((bits, _whole(size)),)


def _gptq(path: Path, said: dict[str, Any]) -> Declared:
    if said.get("bits") not in (4, 8):
        raise _refused(path, f"GPTQ with {said.get('bits')} bits")
    form = said.get("checkpoint_format", "gptq")
    if form not in ("gptq", "gptq_v2"):
        raise _refused(path, f"GPTQ in the format {shorten(str(form))!r}")
    kinds = _kinds(said, said["bits"], said.get("group_size"))
    return Declared("gptq", zero_offset=1 if form == "gptq" else 0, kinds=kinds)


def _awq(path: Path, said: dict[str, Any]) -> Declared:
    version = str(said.get("version", "gemm")).lower()
    if said.get("bits", said.get("w_bit")) != 4 or version != "gemm":
        raise _refused(path, f"AWQ with {said.get('bits')} bits in the layout {shorten(version)!r}")
    return Declared("awq", kinds=_kinds(said, 4, said.get("group_size", said.get("q_group_size"))))


def _fp8(path: Path, said: dict[str, Any]) -> Declared:
    block = said.get("weight_block_size")
    if block is not None and (len(block) != 2 or any(type(side) is not int or side < 1 for side in block)):
        raise _refused(path, f"weight_block_size {shorten(str(block))}")
    return Declared("fp8", block=None if block is None else (block[0], block[1]))


METHODS = {"compressed-tensors": _compressed, "gptq": _gptq, "awq": _awq, "fp8": _fp8}


def _malformed(path: Path, key: str, found: Any) -> ModelInvalid:
    return ModelInvalid(str(path), f"{key} is {shorten(str(found))}, where an object is read", WORKS)


def _refused(path: Path, found: str) -> ModelInvalid:
    return ModelInvalid(str(path), f"the weights are {found}, which is not read", WORKS)
