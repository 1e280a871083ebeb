"""Rotary positions: the angles of a step, for every kind of scaling that transformers knows.

Takes inverse frequencies from transformers, so that a new kind of scaling is right by construction.
"""

from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from cluster.errors import ModelInvalid


class Rope:
    """One set of inverse frequencies and the factor that some scalings put on cosine and sine."""

    def __init__(self, config: Any, layer_type: str | None, head_dim: int, device: str) -> None:
        inverse, self.factor = _inverse_frequencies(config, layer_type, head_dim)
        if inverse.shape[0] * 2 != head_dim:
            raise ModelInvalid(
                "config.json",
                f"rope turns {inverse.shape[0] * 2} of {head_dim} dimensions",
                "rope turns a whole head here",
            )
        self.inverse = inverse.to(device=device, dtype=torch.float32)

    def angles(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine [T, 1, head_dim] of `positions` [T]; computed in float32 as transformers does."""
        half = positions[:, None].float() * self.inverse
        both = torch.cat((half, half), dim=-1)[:, None]
        return (both.cos() * self.factor).to(dtype), (both.sin() * self.factor).to(dtype)


def exact_context(config: Any) -> int | None:
    """How far positions go before a scaling changes its frequencies under way; None if it never does.

    Dynamic NTK and LongRoPE take other frequencies once a sequence has grown past a length, so keys cached
    before are turned by the old ones and results come to depend on how a prompt was cut. We stop there.
    """
    limits = [_limit(config, parameters) for parameters in _parameter_sets(config)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(config: Any, parameters: dict[str, Any]) -> int | None:
    kind = parameters.get("rope_type")
    if kind == "dynamic":
        return int(config.max_position_embeddings)
    return int(parameters["original_max_position_embeddings"]) if kind == "longrope" else None


def _parameter_sets(config: Any) -> list[dict[str, Any]]:
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return []
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return nested or [parameters]


def _inverse_frequencies(config: Any, layer_type: str | None, head_dim: int) -> tuple[torch.Tensor, float]:
    parameters = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
    kind = parameters["rope_type"]
    if kind == "default":
        return 1.0 / (parameters["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)), 1.0
    if kind not in ROPE_INIT_FUNCTIONS:
        raise ModelInvalid("config.json", f"rope_type {kind!r} is not known", f"one of {sorted(ROPE_INIT_FUNCTIONS)}")
    inverse, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), layer_type=layer_type)
    return inverse, float(factor)
