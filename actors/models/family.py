"""What sets the decoder families apart: one description per architecture, taken from its config.

Knows the config fields of the families we run with fused layers. Computes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cluster.errors import ModelInvalid


@dataclass(frozen=True, slots=True)
class Family:
    """The shape of a decoder and the places where one family differs from the next.

    `windows` and `ropes` have an entry per layer: how many positions back it sees (None: all), and which entry
    of the config's rope parameters it turns by (None where there is one for all layers).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    eps: float
    activation: str
    tied: bool
    scale: float
    windows: tuple[int | None, ...]
    ropes: tuple[str | None, ...]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm_offset: bool = False  # Gemma's norms scale by 1 + weight, in float32
    sandwich: bool = False  # Gemma 2 and later also norm what a block adds to the residual
    embedding_scale: float = 1.0
    attention_softcap: float | None = None
    logit_softcap: float | None = None


def language_part(config: Any) -> Any:
    """The config of the decoder itself, where an architecture of ours has eyes as well."""
    return config.text_config if config.model_type == "gemma3" else config


def describe(config: Any) -> Family | None:
    """The family of a decoder's `config`, or None if it is not one of ours."""
    of = FAMILIES.get(config.model_type)
    if of is None or getattr(config, "use_bidirectional_attention", None):
        return None
    family = of(config)
    _check(family)
    return family


def _check(family: Family) -> None:
    """Refuse numbers that no model can have; transformers checks types, and only some values."""
    names = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "context")
    wrong = [name for name in names if getattr(family, name) < 1]
    if wrong:
        raise ModelInvalid("config.json", f"{wrong[0]} is {getattr(family, wrong[0])}", "it is at least 1")
    if family.heads % family.kv_heads:
        raise ModelInvalid(
            "config.json",
            f"{family.heads} heads share {family.kv_heads} key-value heads",
            "the second divides the first",
        )


def _llama(config: Any) -> Family:
    layers = config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bias = bool(getattr(config, "attention_bias", False))
    return Family(
        layers=layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        context=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        activation=getattr(config, "hidden_activation", None) or config.hidden_act,
        tied=bool(config.tie_word_embeddings),
        scale=head_dim**-0.5,
        windows=(None,) * layers,
        ropes=(None,) * layers,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bool(getattr(config, "mlp_bias", False)),
    )


def _mistral(config: Any) -> Family:
    plain = replace(_llama(config), qkv_bias=False, output_bias=False, mlp_bias=False)
    return replace(plain, windows=(config.sliding_window,) * plain.layers)


def _qwen2(config: Any) -> Family:
    return replace(_llama(config), windows=_windows(config), qkv_bias=True, output_bias=False, mlp_bias=False)


def _qwen3(config: Any) -> Family:
    return replace(_llama(config), windows=_windows(config), qk_norm=True, mlp_bias=False)


def _gemma(config: Any) -> Family:
    return replace(
        _llama(config),
        norm_offset=True,
        embedding_scale=config.hidden_size**0.5,
        mlp_bias=False,
    )


def _gemma2(config: Any) -> Family:
    return replace(
        _gemma_sandwich(config),
        attention_softcap=config.attn_logit_softcapping,
    )


def _gemma3(config: Any) -> Family:
    # transformers gives Gemma 3's attention no softcap, whatever its config says
    return replace(_gemma_sandwich(config), qk_norm=True, ropes=tuple(config.layer_types))


def _gemma_sandwich(config: Any) -> Family:
    return replace(
        _llama(config),
        scale=config.query_pre_attn_scalar**-0.5,
        windows=_windows(config),
        norm_offset=True,
        sandwich=True,
        embedding_scale=config.hidden_size**0.5,
        logit_softcap=config.final_logit_softcapping,
        mlp_bias=False,
    )


def _windows(config: Any) -> tuple[int | None, ...]:
    return tuple(config.sliding_window if kind == "sliding_attention" else None for kind in config.layer_types)


FAMILIES: dict[str, Callable[[Any], Family]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
}
