"""The random checkpoint M of about 125 M parameters that all engines load, made once and kept in the cache."""

import json
from pathlib import Path

CACHE = Path.home() / ".cache" / "strata" / "benchmarks"
SHAPE = {
    "vocab_size": 32_000, "hidden_size": 768, "num_hidden_layers": 14, "num_attention_heads": 12,
    "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 2_432, "tie_word_embeddings": True,
    "max_position_embeddings": 4_096,
}  # fmt: skip


def checkpoint() -> Path:
    """The folder, in bf16: Qwen3 shape, seed 0, with a vocabulary of made-up words."""
    folder = CACHE / "qwen3-125m-random"
    if not (folder / "tokenizer.json").is_file():
        _make(folder)
    return folder


def _make(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SHAPE)).to(torch.bfloat16)
    model.save_pretrained(folder)
    words = {f"w{index}": index for index in range(SHAPE["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    tokenizer.save(str(folder / "tokenizer.json"))
