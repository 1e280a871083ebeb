"""Refuse scales and claims of config.json that would be read without a word and multiply weights into nonsense.

Knows what writers of the formats produce. Reads no file.
"""

from collections.abc import Callable

import torch

from actors.models.checkpoint import Checkpoint
from actors.quantization.declared import Declared
from cluster.errors import ModelInvalid

RETAKE = "fetch the folder again, or quantize the model again"
FITTING = "take the config.json that came with the weights"
METHODS = {".weight_packed": ("compressed-tensors",), ".qweight": ("gptq", "awq"), ".weight": ("compressed-tensors",)}


def check_method(checkpoint: Checkpoint, declared: Declared, layer: str, end: str) -> None:
    """Raises ModelInvalid where integers stored as `layer` + `end` are not of the method that config.json names."""
    if declared.method not in METHODS[end]:
        owners = " or ".join(METHODS[end])
        problem = (
            f"quant_method of quantization_config is {declared.method!r}, while {layer}{end} is stored as by {owners}"
        )
        raise ModelInvalid(str(checkpoint.path / "config.json"), problem, FITTING)


def check_kind(checkpoint: Checkpoint, declared: Declared, name: str, bits: int, group: int, columns: int) -> None:
    """Raises ModelInvalid where config.json says other bits, or other columns to a scale, than tensor `name` has."""
    alike = [said for width, said in declared.kinds if width == bits]
    if not declared.kinds or any(
        said is None or said == group or (group == columns and (said <= 0 or said > columns)) for said in alike
    ):
        return
    said = [said for _, said in declared.kinds] if alike else [width for width, _ in declared.kinds]
    key, holds = ("group_size", f"{group} columns to a scale") if alike else (declared.bits_key, f"{bits} bits")
    values = " and ".join(str(value) for value in dict.fromkeys(said))
    problem = f"{key} of quantization_config is {values}, while {name} has {holds}"
    raise ModelInvalid(str(checkpoint.path / "config.json"), problem, FITTING)


def check_floats(checkpoint: Checkpoint, name: str) -> None:
    """Raises ModelInvalid for scales stored as integers, which were cut to them."""
    stored = checkpoint.tensors[name]
    if not stored.dtype.startswith(("F", "BF")):
        raise ModelInvalid(str(stored.file), f"{name} is {stored.dtype} where scales are floats", RETAKE)


def check_scales(
    checkpoint: Checkpoint, name: str, scales: torch.Tensor, used: Callable[[], torch.Tensor], signed: bool
) -> None:
    """Raises ModelInvalid for scales that no writer produces.

    `used` says, in the shape of `scales`, whether any weight of a scale is other than zero. A scale of zero is
    sound where none is: writers that do not clamp it write one for a group of zeros, ours and fp8's among them.
    `signed`: AutoRound writes negative scales into GPTQ's and AWQ's layouts, so that -8 is the widest value.
    """
    if not scales.numel():
        return
    low, high = (float(edge) for edge in scales.aminmax())  # NaN if any is
    if low > 0 and high < float("inf"):
        return
    wrong = ~scales.isfinite() | ((scales == 0) & used())
    if not signed:
        wrong |= scales < 0
    if not wrong.any():
        return
    value, count = float(scales[wrong][0]), int(wrong.sum())
    what = "scales are finite numbers" if signed else "scales are finite and above zero"
    problem = f"{name} holds {value:g} ({count} of {scales.numel()} scales are wrong), while {what}"
    raise ModelInvalid(str(checkpoint.tensors[name].file), problem, RETAKE)
