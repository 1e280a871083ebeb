"""The compressed-tensors layout: the tensors of a quantized matrix, and what config.json says of them.

vLLM, SGLang and transformers read it. Owns names and types of the layout; writes no file and chooses no rounding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from actors.models.quantized import QuantizedWeight
from actors.quantization.packing import pack

Matrix = QuantizedWeight | tuple[torch.Tensor, torch.Tensor]  # or float8 values and their scales
Tensors = dict[str, torch.Tensor]
EMBEDDING = "re:.*embed_tokens$"  # an embedding is no Linear, and engines make it with or without a prefix


def tensors(layer: str, matrix: Matrix, scale_type: torch.dtype, activations: bool) -> Tensors:
    """What the file holds in place of `layer`.weight. `activations`: bytes as they are, as W8A8 wants them."""
    if isinstance(matrix, tuple):
        values, scales = matrix
        return {f"{layer}.weight": values, f"{layer}.weight_scale": scales.to(scale_type)}
    made = {f"{layer}.weight_scale": matrix.scales.to(scale_type)}
    if activations:
        return made | {f"{layer}.weight": matrix.values}
    return made | {
        f"{layer}.weight_packed": pack(matrix.values, matrix.bits),
        f"{layer}.weight_shape": torch.tensor(matrix.shape),
    }


def configuration(matrices: Mapping[str, Matrix], ignored: Sequence[str], activations: bool) -> dict[str, Any]:
    """quantization_config of a folder that holds `matrices`; `ignored` names the linear layers left in floats.

    Most matrices are of one kind and stand for all linear layers; those of another kind, and an embedding, are named:
    readers look for a name before the class of a layer.
    """
    kinds: dict[tuple[str, int, int | None], list[str]] = {}
    for layer, matrix in matrices.items():
        kinds.setdefault(_kind(matrix), []).append(layer)
    commonest = max(kinds, key=lambda kind: len(kinds[kind]))
    groups = []
    for kind in sorted(kinds, key=lambda kind: kind != commonest):
        others = [layer for layer in kinds[kind] if not layer.endswith("embed_tokens")]
        embedding = [EMBEDDING] if len(others) < len(kinds[kind]) else []
        targets = ["Linear"] if kind == commonest else others
        groups += [_group(kind, names, activations) for names in (targets, embedding) if names]
    form = "float-quantized" if commonest[0] == "float" else "int-quantized" if activations else "pack-quantized"
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
        "ignore": list(ignored),
        "kv_cache_scheme": None,
    }


def _kind(matrix: Matrix) -> tuple[str, int, int | None]:
    if isinstance(matrix, tuple):
        return "float", 8, None
    return "int", matrix.bits, None if matrix.group == matrix.shape[1] else matrix.group


def _group(kind: tuple[str, int, int | None], targets: Sequence[str], activations: bool) -> dict[str, Any]:
    number, bits, group = kind
    weights = {
        "num_bits": bits, "type": number, "symmetric": True, "strategy": "channel" if group is None else "group",
        "group_size": group, "dynamic": False, "actorder": None, "block_structure": None, "observer": "minmax",
        "observer_kwargs": {},
    }  # fmt: skip
    inputs = None
    if activations or number == "float":
        inputs = {
            "num_bits": 8, "type": number, "symmetric": True, "strategy": "token", "group_size": None, "dynamic": True,
            "actorder": None, "block_structure": None, "observer": None, "observer_kwargs": {},
        }  # fmt: skip
    return {"targets": list(targets), "weights": weights, "input_activations": inputs, "output_activations": None}
