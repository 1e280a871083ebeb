"""Read and judge the config.json of a Hugging Face folder.

Knows what transformers calls an architecture. Runs no code of the folder: `auto_map` is never followed.
"""

import difflib
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from actors.engine.folder import require
from cluster.errors import ArchitectureUnsupported, ModelInvalid, shorten

ATTENTION_TYPES = {"full_attention", "sliding_attention", "chunked_attention", "indexed_attention", "dummy"}
GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "GenerationDecoder", "WithLMHead")
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")  # configs make a list entry for each
MAX_LAYERS = 10_000
# Code is never run; how weights are stored is for `actors.quantization` to read
UNREAD = {"auto_map", "trust_remote_code", "quantization_config", "compression_config"}
MAX_CONFIG_BYTES = 16 * 2**20  # the largest honest config.json known is under 1 MB


# What the tests hold against transformers' own `generate`: nothing else is suggested to anybody.
TRIED = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3", "bloom", "codegen", "cohere",
    "deepseek_v2", "deepseek_v3", "falcon", "glm", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite",
    "llama4_text", "mixtral", "mpt", "nemotron", "olmo2", "opt", "phi", "phi3", "qwen2_moe", "qwen3_moe", "smollm3",
    "stablelm", "starcoder2",
)  # fmt: skip


def read_config(path: Path) -> Any:
    """The folder's config as transformers reads it; raises ModelInvalid or ArchitectureUnsupported."""
    require(path)
    raw = _read_json(path / "config.json")
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise ModelInvalid(str(path), "config.json has no model_type", "take the config.json of a transformers model")
    _refuse_unknown(path, kind, raw)
    return _build(path, kind, raw)


def nearest(kind: str) -> str:
    """The architecture that is known to run and whose name is closest to `kind`, llama if none is."""
    return next(iter(difflib.get_close_matches(kind, TRIED, n=1, cutoff=0.6)), "llama")


def causal_names() -> list[str]:
    """The `model_type` of every architecture that transformers can generate text with."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelInvalid(str(file), "is too large for a config", "take the original config.json")
        raw = PreTrainedConfig._dict_from_json_file(file)  # it writes infinities in a way of its own
    except OSError as error:
        raise ModelInvalid(str(file), error.strerror or "cannot be read", "give a Hugging Face model folder") from error
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(str(file), "is not JSON", "take the original config.json") from error
    if not isinstance(raw, dict):
        raise ModelInvalid(str(file), "is not a JSON object", "take the original config.json")
    return raw


def _refuse_unknown(path: Path, kind: str, raw: dict[str, Any]) -> None:
    names = causal_names()
    if kind not in names:
        own = " with code of its own, which is never run" if raw.get("auto_map") else ""
        raise ArchitectureUnsupported(
            str(path), f"{kind!r} is no decoder-only architecture of transformers{own}", f"{nearest(kind)} works"
        )
    if raw.get("is_encoder_decoder"):
        raise ArchitectureUnsupported(str(path), f"{kind!r} has an encoder", "llama works")
    classes = raw.get("architectures")
    if isinstance(classes, list) and classes and not any(str(name).endswith(GENERATING) for name in classes):
        raise ArchitectureUnsupported(
            str(path),
            f"{shorten(str(classes[0]))} generates no text",
            f"{nearest(kind)} with a language model's head works",
        )
    for name in LAYER_COUNTS:
        if isinstance(raw.get(name), int) and not 0 < raw[name] <= MAX_LAYERS:
            raise ModelInvalid(str(path), f"{name} is {shorten(raw[name])}", f"it is from 1 to {MAX_LAYERS}")


def _build(path: Path, kind: str, raw: dict[str, Any]) -> Any:
    kept = {key: value for key, value in raw.items() if key not in UNREAD}
    try:
        config = CONFIG_MAPPING[kind].from_dict(kept)
    except Exception as error:  # validators of 150 architectures raise what they like
        raise ModelInvalid(
            str(path), f"config.json does not fit {kind}: {shorten(str(error))}", "correct the field"
        ) from error
    if config.is_encoder_decoder:
        raise ArchitectureUnsupported(str(path), f"{kind!r} has an encoder", "llama works")
    return config


def unsupported(config: Any, why: str) -> ArchitectureUnsupported:
    """The error for an architecture that was understood and cannot be served."""
    return ArchitectureUnsupported(
        "config.json", f"{config.model_type} {why}", "llama, qwen3, mistral and gemma3_text work"
    )


def refuse_stateful(config: Any) -> None:
    """Refuse what keeps a running state beside or instead of keys and values."""
    types = _layer_types(config)
    odd = sorted(types - ATTENTION_TYPES)
    if odd:
        raise unsupported(config, f"has layers of {', '.join(odd)}, whose state is no key-value cache")


def context_of(config: Any) -> int:
    """How many tokens the model was made for; 2048 where nothing limits it and nothing is said."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 2048


def _layer_types(config: Any) -> set[str]:
    try:
        types, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    except (AttributeError, TypeError, ValueError, KeyError):
        return set()  # old configs lack what this looks at; the probe decides
    return set(types)
