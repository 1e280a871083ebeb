"""How much each part of a model suffers when it alone is rounded, and which parts to leave alone.

Owns the measure: the Kullback-Leibler divergence of the next-token distribution from that of the float model, in
nats a token. Parts that engines multiply at once (q, k, v; gate, up) are one part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from actors.quantization.network import Network
from actors.quantization.rounding import group_for, nearest, to_float8
from actors.quantization.sample import Sample

PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
TIMES = 4.0  # a part is worth its bytes in floats if it does so many times the damage that its size would
AUDIBLE = 1e-3  # nats: less than this changes an answer in thousands
MOST_TOKENS = 512  # their distributions are kept: 300 MB where the vocabulary has 150,000 words
MOST = 0.15  # of the weights: leaving more alone gives up what rounding was for
RULE = (  # of `leave_alone`, for people
    f"Worth leaving alone is what does {TIMES:g} times the damage of its size, up to {100 * MOST:g} % of the weights "
    "in all. A part goes whole: q with k and v (qkv), gate with up (gate_up)."
)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One part: where it stands (`layer` -1: the embedding), what it weighs, and the damage of rounding it alone."""

    layer: int
    part: str
    names: tuple[str, ...]
    parameters: int
    divergence: float


def sensitivities(
    network: Network,
    held: Sample,
    to: str,
    *,
    embedding: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sensitivity]:
    """Of all parts, embedding first. The network is as it was afterwards."""
    wanted = said(network, held)
    parts = _parts(network, embedding)
    found = []
    for done, (layer, part, modules) in enumerate(parts, 1):
        weights = [module.get_parameter("weight") for module in modules.values()]
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.copy_(rounded(weight.detach(), to))
            damage = divergence(wanted, said(network, held))
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
        size = sum(weight.numel() for weight in weights)
        found.append(Sensitivity(layer, part, tuple(modules), size, damage))
        if progress is not None:
            progress(done, len(parts))
    return found


def leave_alone(found: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The parts that are worth keeping in floats, worst first; none where rounding does no audible harm."""
    damage = sum(one.divergence for one in found)
    size = sum(one.parameters for one in found)
    budget, chosen = MOST * size, []
    for one in sorted(found, key=lambda one: -one.divergence / one.parameters):
        dear = one.divergence / max(damage, 1e-30) >= TIMES * one.parameters / size
        if dear and one.divergence >= AUDIBLE and one.parameters <= budget:
            budget -= one.parameters
            chosen.append(one)
    return chosen


def rounded(weight: torch.Tensor, to: str) -> torch.Tensor:
    """`weight` as it is after rounding to `to`, in float32."""
    if to == "fp8":
        values, scales = to_float8(weight)
        return values.float() * scales
    return nearest(weight, *group_for(4 if to == "int4" else 8, weight.shape[1])).dequantize()


def said(network: Network, held: Sample) -> torch.Tensor:
    """Log-probabilities [N, vocab] of the first MOST_TOKENS tokens that count; a row at a time, as they are wide."""
    found: list[torch.Tensor] = []
    for row, counts in zip(held.tokens, held.counted, strict=True):
        found.append(network.logits(row[None])[0, :-1][counts[1:]].log_softmax(-1))
        if sum(map(len, found)) >= MOST_TOKENS:
            break
    return torch.cat(found)[:MOST_TOKENS]


def divergence(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Nats a token by which the log-probabilities `found` miss `wanted`."""
    return max(0.0, float((wanted.exp() * (wanted - found)).sum(-1).mean()))


def _parts(network: Network, embedding: bool) -> list[tuple[int, str, dict[str, nn.Module]]]:
    found: list[tuple[int, str, dict[str, nn.Module]]] = []
    if embedding:
        found.append((-1, "embedding", {"embed_tokens": network.model.get_input_embeddings()}))
        head = network.model.get_output_embeddings()
        if head is not None and head.weight is not network.model.get_input_embeddings().weight:
            found.append((-1, "head", {"lm_head": head}))
    for index, layer in enumerate(network.layers):
        named = partial(network.name, index)
        for part, members in PARTS.items():
            found.append((index, part, {named(name): layer.get_submodule(name) for name in members}))
    return found
