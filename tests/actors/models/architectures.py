"""Small random checkpoints of many architectures, with what transformers' own `generate` makes of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging

LENGTHS = (1, 2, 33, 150, 300)
NEW_TOKENS = 8
NO_SPECIALS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA = {
    "vocab_size": 211, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
GPT = {"vocab_size": 211, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512}
EXPERTS = {"moe_intermediate_size": 48, "num_experts_per_tok": 2}
LATENT = {
    **EXPERTS, "num_key_value_heads": 4, "head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16, "v_head_dim": 12, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1,
}  # fmt: skip


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **more}}


@dataclass(frozen=True)
class Architecture:
    """A `model_type`, the config it is made small by, and how far its random weights spread."""

    kind: str
    config: dict[str, Any]
    spread: float = 0.25
    embedding_spread: float = 0.25


def llama(**more: Any) -> Architecture:
    return Architecture("llama", {**LLAMA, **more})


# Gemma multiplies embeddings by sqrt(hidden) and ties them: spread wider, a model would only repeat its input
GEMMA = {**LLAMA, "head_dim": 24, "query_pre_attn_scalar": 20, "sliding_window": 19}
OWN = {
    "llama": llama(),
    "llama-biases-tied": llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "llama-odd": llama(vocab_size=97, num_key_value_heads=1, head_dim=18, intermediate_size=77, num_attention_heads=6,
                       hidden_size=66),
    "llama-linear": llama(**rope("linear", factor=3.0)),
    "llama-dynamic": llama(**rope("dynamic", factor=2.0)),
    "llama-llama3": llama(**rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                 original_max_position_embeddings=64)),
    "llama-yarn": llama(**rope("yarn", factor=4.0, original_max_position_embeddings=128), head_dim=20),
    "mistral": Architecture("mistral", {**LLAMA, "sliding_window": 17}),
    "qwen2": Architecture("qwen2", LLAMA),
    "qwen2-windows": Architecture(
        "qwen2", {**LLAMA, "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}
    ),
    "qwen3": Architecture("qwen3", {**LLAMA, "head_dim": 32}),
    "gemma": Architecture("gemma", {**LLAMA, "head_dim": 24}, embedding_spread=0.03),
    "gemma2": Architecture(
        "gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}, embedding_spread=0.03
    ),
    "gemma3_text": Architecture(
        "gemma3_text", {**GEMMA, "sliding_window_pattern": 2, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        embedding_spread=0.03,
    ),
}  # fmt: skip
OWN["gemma3-with-eyes"] = Architecture(
    "gemma3",
    {
        "text_config": {**GEMMA, **NO_SPECIALS, "sliding_window_pattern": 2},
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "image_size": 28, "patch_size": 14},
    },
    embedding_spread=0.03,
)  # fmt: skip
HOSTED = {
    "gpt2": Architecture("gpt2", GPT),
    "gpt_neox": Architecture("gpt_neox", {**LLAMA, "rotary_pct": 0.5}),
    "gptj": Architecture("gptj", {**GPT, "rotary_dim": 8}),
    "gpt_bigcode": Architecture("gpt_bigcode", GPT),
    "codegen": Architecture("codegen", {**GPT, "rotary_dim": 8}),
    "bloom": Architecture("bloom", {**GPT, "hidden_size": 64, "tie_word_embeddings": False}),
    "mpt": Architecture("mpt", {"vocab_size": 211, "d_model": 64, "n_layers": 3, "n_heads": 4, "max_seq_len": 512}),
    "opt": Architecture("opt", {**LLAMA, "ffn_dim": 96, "word_embed_proj_dim": 64}),
    "falcon-alibi": Architecture("falcon", {**LLAMA, "alibi": True, "multi_query": False, "parallel_attn": False}),
    "falcon-parallel": Architecture("falcon", {**LLAMA, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "phi": Architecture("phi", {**LLAMA, "partial_rotary_factor": 0.5}),
    "phi3": Architecture("phi3", LLAMA),
    "phi3-longrope": Architecture("phi3", {
        **LLAMA, "max_position_embeddings": 2048, "original_max_position_embeddings": 512,
        **rope("longrope", short_factor=[1.1] * 8, long_factor=[2.0] * 8, original_max_position_embeddings=512),
    }),
    "stablelm": Architecture("stablelm", LLAMA),
    "olmo2": Architecture("olmo2", LLAMA),
    "cohere": Architecture("cohere", LLAMA),
    "starcoder2": Architecture("starcoder2", {**LLAMA, "sliding_window": 17}),
    "granite": Architecture("granite", {**LLAMA, "embedding_multiplier": 2.0, "residual_multiplier": 0.5}),
    "glm": Architecture("glm", {**LLAMA, "head_dim": 16}),
    "nemotron": Architecture("nemotron", LLAMA),
    "smollm3": Architecture("smollm3", {**LLAMA, "no_rope_layer_interval": 2}),
    "qwen2_moe": Architecture("qwen2_moe", {
        **LLAMA, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 48,
    }),
    "qwen3_moe": Architecture("qwen3_moe", {**LLAMA, **EXPERTS, "num_experts": 4, "head_dim": 16}),
    "mixtral": Architecture("mixtral", {**LLAMA, "num_local_experts": 4, "sliding_window": 17}),
    "gpt_oss": Architecture("gpt_oss", {**LLAMA, "num_local_experts": 4, "head_dim": 16, "sliding_window": 17}),
    "deepseek_v2": Architecture("deepseek_v2", {**LLAMA, **LATENT}),
    "deepseek_v3": Architecture("deepseek_v3", {**LLAMA, **LATENT}),
    "llama4_text": Architecture("llama4_text", {
        **LLAMA, "head_dim": 16, "num_local_experts": 4, "intermediate_size_mlp": 96, "attention_chunk_size": 16,
    }),
}  # fmt: skip
ALL = OWN | HOSTED


def make(name: str, path: Path) -> Path:
    """Write the checkpoint and `want.json`, the greedy continuations by transformers, into `path`."""
    logging.disable_progress_bar()
    architecture = ALL[name]
    config = CONFIG_MAPPING[architecture.kind](**{**architecture.config, **NO_SPECIALS})
    torch.manual_seed(len(name))
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).float().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, architecture.embedding_spread if "embed" in key else architecture.spread)
            else:  # biases and norms; what they start from is kept, so that no norm is nearly zero
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(path)
    generator = torch.Generator().manual_seed(1)
    vocab = config.get_text_config().vocab_size
    prompts = [torch.randint(0, vocab, (length,), generator=generator).tolist() for length in LENGTHS]
    answers = [generate(model, prompt) for prompt in prompts]
    assert len({token for answer in answers for token in answer}) >= 6, "a model that repeats itself tests nothing"
    (path / "want.json").write_text(json.dumps({"prompts": prompts, "answers": answers}))
    return path


def read(path: Path) -> tuple[list[list[int]], list[list[int]]]:
    """The prompts and the answers that `make` wrote."""
    want = json.loads((path / "want.json").read_text())
    return want["prompts"], want["answers"]


def generate(model: Any, prompt: list[int]) -> list[int]:
    """What transformers itself makes of one prompt."""
    made = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, pad_token_id=0, use_cache=True,
    )  # fmt: skip
    return made[0, len(prompt) :].tolist()
