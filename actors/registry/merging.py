"""Weights of two versions become those of one, tensor by tensor, so that no model has to fit memory.

Knows arithmetic and files in their folders. Knows no refs. Average: Izmailov et al. 2018 (one basin), task vectors:
Ilharco et al. 2023, low-rank adapters: Hu et al. 2021.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import InvalidRequest, ModelInvalid
from cluster.storage.tensors import Stored, headers

if TYPE_CHECKING:
    import torch

STRATEGIES = ("ours", "theirs", "linear", "task", "lora")
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_FLOATS = ("F64", "F32", "F16", "BF16")
_SAME = ("model_type", "architectures", "vocab_size", "hidden_size", "num_hidden_layers")


@dataclass(frozen=True, slots=True)
class Strategy:
    """How: a name of STRATEGIES, and how much of theirs (linear: its share; task, lora: what its change counts)."""

    name: str
    weight: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            raise InvalidRequest("strategy", self.name, f"take one of {', '.join(STRATEGIES)}")
        if not -10.0 <= self.weight <= 10.0:  # also refuses NaN
            raise InvalidRequest(
                "weight", self.weight, "take a number between -10 and 10, of linear one between 0 and 1"
            )
        if self.name == "linear" and not 0.0 <= self.weight <= 1.0:
            raise InvalidRequest("weight", self.weight, "the share of theirs lies between 0 and 1")


def merge(ours: Path, theirs: Path, base: Path | None, strategy: Strategy, into: Path) -> None:
    """Write to the folder `into` the weight files of `ours`, changed as `strategy` says; all three as checked out.

    `base`: what both descend from, which `task` needs. Raises ModelInvalid for folders that do not fit one another,
    before anything is written.
    """
    if strategy.name in ("ours", "theirs"):
        raise InvalidRequest("strategy", strategy.name, "weights that are taken as they are need no arithmetic")
    if strategy.name == "lora":
        change: _Change = _adapter(ours, theirs, strategy.weight)
    else:
        _check_configs(ours, theirs)
        change = _blended(ours, theirs, base, strategy)
    for file in _files(ours):
        _write(file, into / file.name, change)


_Change = Callable[[str, "torch.Tensor"], "torch.Tensor"]


def _blended(ours: Path, theirs: Path, base: Path | None, strategy: Strategy) -> _Change:
    mine, other = _index(ours), _index(theirs)
    _check_tensors(mine, other, theirs)
    if strategy.name == "linear":
        return lambda name, own: own.float().lerp(_read(other[name]).float(), strategy.weight)
    if base is None:
        remedy = "merge versions that descend from one, or take linear"
        raise ModelInvalid(str(theirs), "has no version in common with ours to count changes from", remedy)
    before = _index(base)
    _check_tensors(mine, before, base)

    def add(name: str, own: "torch.Tensor") -> "torch.Tensor":
        return own.float() + strategy.weight * (_read(other[name]).float() - _read(before[name]).float())

    return add


def _adapter(ours: Path, theirs: Path, weight: float) -> _Change:
    """Theirs is a folder of PEFT's with a low-rank adapter of ours."""
    config = _json(theirs / ADAPTER_CONFIG)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ModelInvalid(str(theirs / ADAPTER_CONFIG), "names no r and lora_alpha", "save the adapter with PEFT")
    scale = weight * alpha / (rank**0.5 if config.get("use_rslora") else rank)
    found = dict(headers(theirs / ADAPTER))
    mine = _index(ours)
    pairs: dict[str, tuple[Stored, Stored]] = {}
    for name, down in found.items():
        if not name.endswith(".lora_A.weight"):
            continue
        target = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
        up = found.get(name.replace(".lora_A.", ".lora_B."))
        own = mine.get(target)
        if up is None or own is None or own.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
            problem = f"its {name} fits no weight of ours ({target})"
            raise ModelInvalid(str(theirs / ADAPTER), problem, "merge an adapter into the model that it was trained on")
        pairs[target] = (up, down)
    left = [name for name in found if ".lora_A." not in name and ".lora_B." not in name]
    if left or 2 * len(pairs) != len(found):
        problem = f"holds more than low-rank pairs of weights ({(left or list(found))[0]})"
        raise ModelInvalid(str(theirs / ADAPTER), problem, "save the adapter without modules_to_save")

    def add(name: str, own: "torch.Tensor") -> "torch.Tensor":
        if name not in pairs:
            return own
        up, down = (_read(stored).float() for stored in pairs[name])
        return own.float() + scale * (up @ down)

    return add


def _write(file: Path, target: Path, change: _Change) -> None:
    """`file` with each tensor changed, in its own type, at the same bytes."""
    declared = sorted(headers(file), key=lambda item: item[1].offset)
    end = min((stored.offset for _, stored in declared), default=file.stat().st_size)
    with file.open("rb") as opened, target.open("wb") as made:
        made.write(opened.read(end))
        for name, stored in declared:
            own = _read(stored)
            made.write(_bytes(change(name, own).to(own.dtype) if stored.dtype.startswith(_FLOATS) else own))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _index(folder: Path) -> dict[str, Stored]:
    return {name: stored for file in _files(folder) for name, stored in headers(file)}


def _check_configs(ours: Path, theirs: Path) -> None:
    mine, other = _json(ours / "config.json"), _json(theirs / "config.json")
    for key in _SAME:
        if mine.get(key) != other.get(key):
            problem = f"has {key} {other.get(key)!r} where ours has {mine.get(key)!r}"
            raise ModelInvalid(str(theirs), problem, "only versions of one architecture can be merged")


def _check_tensors(mine: Mapping[str, Stored], other: Mapping[str, Stored], where: Path) -> None:
    for name in sorted({*mine, *other}):
        kinds = [(found[name].dtype, found[name].shape) if name in found else None for found in (mine, other)]
        if kinds[0] != kinds[1]:
            problem = f"has {name} as {_kind(kinds[1])} where ours has {_kind(kinds[0])}"
            raise ModelInvalid(str(where), problem, "only weights of the same names, types and shapes can be merged")
        if not mine[name].dtype.startswith(_FLOATS) and not _read(mine[name]).equal(_read(other[name])):
            problem = f"has other whole numbers in {name} ({mine[name].dtype}), which cannot be blended"
            raise ModelInvalid(str(where), problem, "merge the float versions, then quantize what comes of it")


def _kind(kind: tuple[str, tuple[int, ...]] | None) -> str:
    return "none" if kind is None else f"{kind[0]} {list(kind[1])}"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as wrong:
        raise ModelInvalid(str(path), "cannot be read as JSON", "check the version out again") from wrong
    if not isinstance(found, dict):
        raise ModelInvalid(str(path), "is no JSON object", "check the version out again")
    return found


def _read(stored: Stored) -> "torch.Tensor":
    import torch  # noqa: PLC0415 - heavy, and most of the registry does without

    from actors.models.headers import TYPES  # noqa: PLC0415 - likewise

    content = bytearray(stored.bytes)
    with stored.file.open("rb") as opened:
        opened.seek(stored.offset)
        opened.readinto(content)
    if not content:
        return torch.empty(stored.shape, dtype=TYPES[stored.dtype])
    return torch.frombuffer(content, dtype=TYPES[stored.dtype]).view(stored.shape)


def _bytes(tensor: "torch.Tensor") -> bytes:
    import torch  # noqa: PLC0415 - heavy, and most of the registry does without

    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def changed_by(was: bytes, now: bytes, dtype: str) -> float:
    """Of two tensors of one type and shape: the norm of the difference over that of what it was, or over 1 for zero."""
    import torch  # noqa: PLC0415 - heavy, and most of the registry does without

    from actors.models.headers import TYPES  # noqa: PLC0415 - likewise

    if not was:
        return 0.0
    old, new = (torch.frombuffer(bytearray(content), dtype=TYPES[dtype]).double() for content in (was, now))
    return float((new - old).norm()) / (float(old.norm()) or 1.0)
