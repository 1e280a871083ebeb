"""A low-rank adapter, as PEFT writes it, added to the weights that it was trained on. Hu et al. 2021.

Knows the folder of an adapter and what its configuration means. Knows no versions.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from actors.registry.merging import FLOATS, Change, bytes_of, finite, tensor_of
from cluster.errors import ModelInvalid
from cluster.storage.tensors import Stored, headers

if TYPE_CHECKING:
    import torch

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Kind = tuple[str, tuple[int, ...]]  # of a tensor: its type as safetensors has it, and its shape


@dataclass(frozen=True, slots=True)
class Pair:
    """What is added to one weight: `scale` x `up` x `down`, turned over where the layer keeps its weight so."""

    up: Stored
    down: Stored
    scale: float
    turned: bool

    def of(self) -> "torch.Tensor":
        """In F32."""
        up, down = (_read(stored).float() for stored in (self.up, self.down))
        found = self.scale * (up @ down)
        return found.T if self.turned else found


def pairs(folder: Path, ours: Mapping[str, Kind], weight: float) -> dict[str, Pair]:
    """By the name of each weight of ours that the adapter in `folder` changes, counted `weight` times.

    Raises ModelInvalid where it is none, or not one of ours.
    """
    config = _config(folder / CONFIG)
    found = dict(headers(folder / WEIGHTS))
    made: dict[str, Pair] = {}
    for name, down in found.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        up, own = found.get(name.replace(".lora_A.", ".lora_B.")), ours.get(f"{module}.weight")
        fits = up is not None and own is not None and up.shape[1:] == down.shape[:1] and len(down.shape) == 2
        if up is None or own is None or not fits or own[1] != config.shape(up, down):
            problem = f"its {name} fits no weight of ours ({module}.weight)"
            remedy = "merge an adapter into the model that it was trained on"
            raise ModelInvalid(str(folder / WEIGHTS), problem, remedy)
        if own[0] not in FLOATS:
            problem = f"its {name} is for a weight of ours that has whole numbers ({module}.weight, {own[0]})"
            raise ModelInvalid(str(folder / WEIGHTS), problem, "merge it into the float version, then quantize that")
        made[f"{module}.weight"] = Pair(up, down, weight * config.scale(module, down.shape[0]), config.turned)
    left = [name for name in found if ".lora_A." not in name and ".lora_B." not in name]
    if left or 2 * len(made) != len(found):
        problem = f"holds more than low-rank pairs of weights ({(left or list(found) or ['nothing'])[0]})"
        raise ModelInvalid(str(folder / WEIGHTS), problem, "save the adapter without modules_to_save")
    return made


def digest(folder: Path) -> str:
    """SHA-256 of an adapter's weights, hex: by which others find it again."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def added(found: Mapping[str, Pair], what: str) -> Change:
    """What becomes of a tensor of ours that one is for. `what`: the name of the adapter. Raises ModelInvalid."""

    def add(name: str, own: "torch.Tensor") -> "torch.Tensor":
        more = found[name].of()
        return finite(name, (own.float() + more).to(own.dtype), {"ours": own, what: more})

    return add


def add(ours: Path, folder: Path, into: Path, weight: float = 1.0) -> None:
    """Write to `into` the weight files of the folder `ours` with the adapter in `folder`. Raises ModelInvalid."""
    files = sorted(ours.glob("*.safetensors"))
    kinds = {name: (stored.dtype, stored.shape) for file in files for name, stored in headers(file)}
    found = pairs(folder, kinds, weight)
    change = added(found, str(folder))
    for file in files:
        declared = sorted(headers(file), key=lambda item: item[1].offset)
        end = min((stored.offset for _, stored in declared), default=file.stat().st_size)
        with file.open("rb") as opened, (into / file.name).open("wb") as made:
            made.write(opened.read(end))
            for name, stored in declared:
                own = _content(stored)
                if name in found:
                    tensor = tensor_of(own, stored.dtype, stored.shape)
                    made.write(bytes_of(change(name, tensor).to(tensor.dtype)))
                else:
                    made.write(own)


@dataclass(frozen=True, slots=True)
class _Config:
    """Patterns are PEFT's: regular expressions of whole names of modules, or of their last parts; the first counts."""

    path: Path
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    stable: bool
    turned: bool

    def scale(self, module: str, rank: int) -> float:
        """Of the pair of a module. Raises ModelInvalid where it has another rank than is said."""
        said = _matching(self.ranks, module, self.rank)
        if said != rank:
            problem = f"says that {module} has the rank {said}, and the weights have {rank}"
            raise ModelInvalid(str(self.path), problem, "save the adapter with PEFT again")
        return float(_matching(self.alphas, module, self.alpha)) / (rank**0.5 if self.stable else rank)

    def shape(self, up: Stored, down: Stored) -> tuple[int, ...]:
        """Of the weight that a pair is added to."""
        return (down.shape[1], up.shape[0]) if self.turned else (up.shape[0], down.shape[1])


def _config(path: Path) -> _Config:
    if not path.is_file():
        raise ModelInvalid(str(path), "is not there", "give the folder that PEFT saved, with that file in it")
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as wrong:
        raise ModelInvalid(str(path), "cannot be read as JSON", "give the folder that PEFT saved") from wrong
    if not isinstance(said, dict):
        raise ModelInvalid(str(path), "is no JSON object", "give the folder that PEFT saved")
    rank, alpha = said.get("r"), said.get("lora_alpha")
    if not _is_rank(rank) or not _is_number(alpha):
        raise ModelInvalid(str(path), "names no r and lora_alpha", "save the adapter with PEFT")
    ranks, alphas = (said.get(name) or {} for name in ("rank_pattern", "alpha_pattern"))
    for name, patterns, fits in (("rank_pattern", ranks, _is_rank), ("alpha_pattern", alphas, _is_number)):
        if not isinstance(patterns, dict) or not all(_is_pattern(key) and fits(patterns[key]) for key in patterns):
            problem = f"has a {name} that is no object of numbers by regular expressions"
            raise ModelInvalid(str(path), problem, "save the adapter with PEFT again")
    if said.get("use_dora"):
        remedy = "merge it with PEFT's merge_and_unload, and push what that saves"
        raise ModelInvalid(str(path), "is DoRA's (use_dora), which scales the weights too", remedy)
    return _Config(path, rank, alpha, ranks, alphas, bool(said.get("use_rslora")), bool(said.get("fan_in_fan_out")))


def _matching(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """As `peft.utils.other.get_pattern_key`."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _is_pattern(key: str) -> bool:
    try:
        re.compile(rf"(.*\.)?({key})$")
    except re.error:
        return False
    return True


def _is_rank(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read(stored: Stored) -> "torch.Tensor":
    return tensor_of(_content(stored), stored.dtype, stored.shape)


def _content(stored: Stored) -> bytearray:
    content = bytearray(stored.bytes)
    with stored.file.open("rb") as opened:
        opened.seek(stored.offset)
        opened.readinto(content)
    return content
