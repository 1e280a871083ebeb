from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

SHAPE = {
    "vocab_size": 98, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "intermediate_size": 96, "max_position_embeddings": 128, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
FAMILIES = {
    "llama": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": True},
    "gemma2": {"query_pre_attn_scalar": 32, "sliding_window": 16},
}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random model of a family, in bfloat16, with some channels far larger than others."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            logging.disable_progress_bar()
            torch.manual_seed(5)
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE, **FAMILIES[family]))
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.2))
                    if parameter.dim() == 1 and "norm" in name:
                        parameter.add_(0.0 if family == "gemma2" else 1.0)
                        parameter[:3] *= 8  # what comes out of a norm has outliers, as in real models
            made[family] = tmp_path_factory.mktemp(family)
            model.bfloat16().save_pretrained(made[family])
        return made[family]

    return folder
