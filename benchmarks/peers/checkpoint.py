"""The random checkpoints S, M and L that all engines load, made once and kept in the cache."""

import json
from pathlib import Path

CACHE = Path.home() / ".cache" / "strata" / "benchmarks"
COMMON = {"vocab_size": 32_000, "tie_word_embeddings": True, "max_position_embeddings": 4_096}
SHAPES = {  # name of the folder, architecture, shape
    "S": (
        "llama-22m-random",
        "llama",
        {
            "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2,
            "head_dim": 64, "intermediate_size": 1_024,
        },
    ),
    "M": (
        "qwen3-125m-random",
        "qwen3",
        {
            "hidden_size": 768, "num_hidden_layers": 14, "num_attention_heads": 12, "num_key_value_heads": 4,
            "head_dim": 64, "intermediate_size": 2_432,
        },
    ),
    "L": (
        "qwen3-473m-random",
        "qwen3",
        {
            "hidden_size": 1_024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "intermediate_size": 3_072,
        },
    ),
}  # fmt: skip


def checkpoint(size: str = "M") -> Path:
    """The folder, in bf16: seed 0, with a vocabulary of made-up words."""
    name, architecture, shape = SHAPES[size]
    folder = CACHE / name
    if not (folder / "tokenizer.json").is_file():
        _make(folder, architecture, {**COMMON, **shape})
    return folder


def _make(folder: Path, architecture: str, shape: dict) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **shape)).to(torch.bfloat16)
    model.save_pretrained(folder)
    words = {f"w{index}": index for index in range(shape["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    tokenizer.save(str(folder / "tokenizer.json"))
