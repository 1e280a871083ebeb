"""A token's logits are the same to the last bit, whichever way and beside whomever the model computes them."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from actors.models import load
from tests.actors.kernels.test_identical import cuts_of, threads
from tests.actors.models.driver import Running, plan

STARTER = Path(__file__).parents[3] / "models" / "starter"
SHAPE = {
    "vocab_size": 50, "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 32, "intermediate_size": 80, "max_position_embeddings": 512,
}  # fmt: skip
FAMILIES = {
    "qwen3": {},
    "gemma2": {"sliding_window": 50, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 5.0},
    "gemma3_text": {"sliding_window": 20, "query_pre_attn_scalar": 32},
}
TOKENS = 200
BLOCK = 16
OTHERS = [(40, 1), (17, 1), (70, 30)]  # tokens in the cache and tokens in the step


@pytest.fixture(scope="module", params=["starter", *FAMILIES])
def folder(request, tmp_path_factory):
    if request.param == "starter":
        return STARTER
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp(request.param)
    config = AutoConfig.for_model(request.param, **SHAPE, **FAMILIES[request.param])
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


class Computed:
    """One sequence of random tokens, computed anew with every call."""

    def __init__(self, model):
        self.model, random = model, Random(3)
        self.tokens = [random.randrange(model.vocab_size) for _ in range(TOKENS)]
        self.need = -(-TOKENS // BLOCK)

    def __call__(self, cuts, others=()):
        """The logits of all tokens, in steps that end at `cuts`."""
        blocks = torch.randperm(64).tolist()
        self.model.allocate(64, BLOCK)
        made = []
        for start, stop in pairwise([0, *cuts]):
            own = Running(self.tokens, blocks[: self.need], TOKENS, start)
            beside = [
                (Running([5] * (before + count), blocks[50 - 8 * i : 58 - 8 * i], before + count, before), count)
                for i, (before, count) in enumerate(others)
            ]
            chosen = sorted([(own, stop - start), *beside], key=lambda each: each[1] != 1)
            decodes = sum(count == 1 for _, count in chosen)
            at = sum(count for _, count in chosen[: chosen.index((own, stop - start))])
            batch = plan([r for r, _ in chosen], [count for _, count in chosen], decodes, BLOCK)
            made.append(self.model.forward(replace(batch, rows=torch.arange(at, at + stop - start))))
        return torch.cat(made)


@pytest.mark.parametrize("kept", ["auto", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_of_every_token(folder, dtype, kept):
    model = load(folder, dtype=dtype, kv_cache_dtype=kept)
    computed = Computed(model)
    whole = computed([TOKENS])
    assert model.fused is not None
    assert whole.std() > 0
    assert torch.equal(computed(range(1, TOKENS + 1)), whole)
    assert torch.equal(computed(cuts_of(TOKENS, 1)), whole)
    assert torch.equal(computed(cuts_of(TOKENS, 2), OTHERS), whole)
    with threads(2):
        assert torch.equal(computed([TOKENS]), whole)
        assert torch.equal(computed(cuts_of(TOKENS, 4), OTHERS), whole)
