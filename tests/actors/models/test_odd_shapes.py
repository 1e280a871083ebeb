"""Our decoders equal transformers for shapes that no published model has."""

from random import Random

import pytest

from actors.models import decoder, load
from actors.models.family import FAMILIES
from tests.actors.models import architectures
from tests.actors.models.architectures import Architecture
from tests.actors.models.driver import Driver


def drawn(seed: int) -> Architecture:
    random = Random(seed)
    kind = sorted(FAMILIES)[seed % len(FAMILIES)]
    kv_heads = random.choice([1, 2, 3])
    heads = kv_heads * random.choice([1, 2, 5])
    config = {
        "vocab_size": random.choice([53, 101, 128]), "hidden_size": heads * random.choice([3, 8, 11]),
        "intermediate_size": random.choice([7, 33, 96]), "num_hidden_layers": random.choice([1, 2, 4]),
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": random.choice([2, 6, 22, 48]),
        "max_position_embeddings": 512, "tie_word_embeddings": False,
        "attention_bias": random.random() < 0.5, "mlp_bias": random.random() < 0.5,
    }  # fmt: skip
    if kind not in ("llama", "gemma"):
        config |= {"sliding_window": random.choice([2, 9, 40, 1000])}
    if kind in ("qwen2", "qwen3"):
        config |= {"use_sliding_window": True, "max_window_layers": 1}
    if kind in ("gemma2", "gemma3_text"):
        config |= {"query_pre_attn_scalar": random.choice([1, 7, 64])}
    if kind == "gemma2":
        config |= {"attn_logit_softcapping": random.choice([None, 1.5]), "final_logit_softcapping": None}
    return Architecture(kind, config, 0.3, 0.05 if "gemma" in kind else 0.3)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("seed", range(14))
def test_odd_shape(tmp_path, monkeypatch, seed, compiled):
    monkeypatch.setitem(architectures.ALL, "odd", drawn(seed))
    if not compiled:
        monkeypatch.setattr(decoder, "fuse", lambda *_: None)
    prompts, answers = architectures.read(architectures.make("odd", tmp_path))
    model = load(tmp_path, dtype="float32")
    made = Driver(model, block_tokens=1 + seed % 5, chunk=3 + 9 * seed, seed=seed)
    assert made.generate(prompts, architectures.NEW_TOKENS) == answers
