"""Round a whole model by what its layers do with sample text: GPTQ, AWQ or SmoothQuant, layer after layer.

Every layer is fed with what the already rounded layers before it make, so that later ones make up for earlier ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from actors.models.quantized import QuantizedWeight
from actors.quantization.activations import Inputs, watched
from actors.quantization.gptq import gptq
from actors.quantization.network import Network, Walk
from actors.quantization.rounding import group_for, nearest
from actors.quantization.sample import Sample
from actors.quantization.scaling import Fold, awq, smooth
from cluster.errors import ModelInvalid

METHODS = ("rtn", "awq", "gptq", "smoothquant")


@dataclass(slots=True)
class Calibrated:
    """What takes the place of the checkpoint's tensors: matrices by layer name, changed floats by tensor name."""

    matrices: dict[str, QuantizedWeight] = field(default_factory=dict)
    floats: dict[str, torch.Tensor] = field(default_factory=dict)


def calibrate(
    network: Network,
    held: Sample,
    method: str,
    bits: int,
    *,
    ignored: Callable[[str], bool] | None = None,
    scale_type: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """The decoder layers of `network` rounded by `method` over the sample `held`. Changes the network on the way."""
    made = Calibrated()
    for walk in network.walk(held.tokens):
        for part, linear in _linears(walk.layer):
            if not bool(torch.isfinite(linear.weight).all()):
                name = f"{network.name(walk.index, part)}.weight"
                raise ModelInvalid(str(network.folder), f"{name} holds NaN or infinities", "take other weights")
        with watched(walk.layer, held.real) as inputs:
            walk.run()
        if method in ("awq", "smoothquant"):
            for fold in folds(network, walk.layer, inputs):
                names = [_name(network, walk, reader) for reader in fold.readers]
                if ignored is None or not any(map(ignored, names)):
                    fold.apply(_scale(fold, method, bits))
        for part, linear in _linears(walk.layer):
            name = network.name(walk.index, part)
            if ignored is not None and ignored(name):
                continue
            kind = group_for(bits, linear.in_features)
            weight = linear.weight.detach()
            if method == "gptq":
                rounded = gptq(weight, inputs[part].second, *kind, scale_type)
            else:
                rounded = nearest(weight, *kind, scale_type)
            made.matrices[name] = rounded
            linear.weight.data.copy_(rounded.dequantize())
        _keep_floats(made, network, walk)
        if progress is not None:
            progress(walk.index + 1, len(network.layers))
    return made


def folds(network: Network, layer: nn.Module, inputs: dict[str, Inputs]) -> Iterator[Fold]:
    """The places in a decoder layer of ours where a channel can be scaled: before qkv, o, gate and up, down."""
    family = network.family
    at = dict(layer.named_modules())
    attention = [at[f"self_attn.{letter}_proj"] for letter in "qkvo"]
    q, k, v, o = (linear for linear in attention if isinstance(linear, nn.Linear))
    gate, up, down = (at[f"mlp.{part}_proj"] for part in ("gate", "up", "down"))
    assert isinstance(gate, nn.Linear)
    assert isinstance(up, nn.Linear)
    assert isinstance(down, nn.Linear)
    before = at["pre_feedforward_layernorm" if family.sandwich else "post_attention_layernorm"]
    offset = family.norm_offset
    # a fold that changes a maker's rows goes before the one that rounds it: order does not matter, rounding is last
    yield Fold(at["input_layernorm"], (q, k, v), inputs["self_attn.q_proj"], offset)
    repeat = family.heads // family.kv_heads
    yield Fold(v, (o,), inputs["self_attn.o_proj"], heads=family.kv_heads, repeat=repeat)
    yield Fold(before, (gate, up), inputs["mlp.gate_proj"], offset)
    yield Fold(up, (down,), inputs["mlp.down_proj"])


def _scale(fold: Fold, method: str, bits: int) -> torch.Tensor:
    if method == "smoothquant":
        return smooth(fold)
    return awq(fold, *group_for(bits, fold.readers[0].in_features))


def _linears(layer: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]


def _name(network: Network, walk: Walk, wanted: nn.Module) -> str:
    return next(network.name(walk.index, part) for part, linear in _linears(walk.layer) if linear is wanted)


def _keep_floats(made: Calibrated, network: Network, walk: Walk) -> None:
    """What folding may have changed besides the matrices: norms, biases, and matrices that were ignored."""
    for part, parameter in walk.layer.named_parameters():
        layer = network.name(walk.index, part.removesuffix(".weight"))
        if layer not in made.matrices:
            made.floats[network.name(walk.index, part)] = parameter.detach().clone()
