"""A cache of bytes: what rounding loses, what it takes, and that models give the same first tokens over it."""

from pathlib import Path

import pytest
import torch

from actors.engine import LLM, SamplingParams
from actors.gang import kv_blocks
from actors.messages import Assignment, ShardFacts
from actors.models import load
from actors.models.attention import PagedAttention
from actors.models.cache import CachedTensor, bytes_per_token, rounded
from actors.settings import Limits
from cluster.errors import ModelInvalid
from tests.actors.kernels.batches import scattered, slots_in
from tests.actors.models.driver import Driver

STARTER = Path(__file__).parents[3] / "models" / "starter"
QUESTIONS = (
    "What is 17 + 25?",
    "How many metres are 3 kilometres?",
    "What day comes after Friday?",
    "Who are you?",
    "How many days has March?",
    "What is 9 times 8?",
)
BATCHES = {
    "decode 1": ([1], [99]),
    "decode 8": ([1] * 8, [0, 1, 7, 15, 63, 64, 65, 200]),
    "decode 32": ([1] * 32, list(range(0, 160, 5))),
    "prefill 1": ([70], [10]),
    "prefill 8": (list(range(2, 18, 2)), [0, 30] * 4),
    "prefill 32": (list(range(2, 34)), [0, 5, 40, 9] * 8),
}


def test_rounding_loses_half_a_step_at_most():
    torch.manual_seed(0)
    numbers = torch.randn(9, 3, 40) * torch.logspace(-6, 6, 9)[:, None, None]
    made, scales = rounded(numbers)
    assert made.dtype is torch.int8
    assert scales.shape == (9, 3)
    assert ((made * scales[..., None] - numbers).abs() <= scales[..., None] * 0.5001).all()
    assert (made.abs().amax(-1) == 127).all()


def test_nothing_stays_nothing_and_no_number_stays_none():
    cached = CachedTensor((4, 2, 8), torch.bfloat16, "cpu", "int8")
    new = torch.ones(2, 2, 8, dtype=torch.bfloat16)
    new[0] = 0
    new[1, 1, 3] = torch.nan
    cached.write(torch.tensor([3, 1]), new)
    read = cached.read(torch.tensor([3, 1, 0]))
    assert read.dtype is torch.bfloat16
    assert torch.equal(read[0], torch.zeros(2, 8, dtype=torch.bfloat16))
    assert torch.equal(read[1, 0], torch.ones(8, dtype=torch.bfloat16))
    assert read[1, 1].isnan().all()
    assert not read[2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BATCHES)
def test_attention_over_bytes_is_near_attention_over_numbers(name, dtype):
    """Of random keys and values, by plain torch: a number is off by half of a 127th of its head's largest, here 3 or
    so; the mean over positions is off by less, the weights by as much; half precision rounds once more."""
    torch.manual_seed(0)
    batch = scattered(*BATCHES[name])
    numbers = [torch.randn(slots_in(batch), 2, 64).to(dtype) for _ in range(2)]
    q = torch.randn(len(batch.tokens), 6, 64).to(dtype)
    made = {}
    for kept in ("auto", "int8"):
        cached = [CachedTensor(n.shape, dtype, "cpu", kept) for n in numbers]
        for cache, new in zip(cached, numbers, strict=True):
            cache.write(torch.arange(len(new)), new)
        made[kept] = PagedAttention(batch)(q, *cached, 64**-0.5).float()
    off = (made["int8"] - made["auto"]).abs()
    assert 0 < off.max() < (0.04 if dtype is torch.float32 else 0.06)
    assert off.mean() < 0.005


@pytest.mark.parametrize(("head_dim", "times"), [(64, 1.88), (128, 1.93)])
def test_twice_the_tokens_but_for_their_scales(head_dim, times):
    shape = (4, head_dim)
    sizes = {kept: bytes_per_token(shape, torch.bfloat16, kept) for kept in ("auto", "int8")}
    cached = CachedTensor((10, *shape), torch.bfloat16, "cpu", "int8")
    assert cached.scales is not None
    assert sizes["int8"] * 10 == cached.numbers.nbytes + cached.scales.nbytes

    def blocks(size):
        facts = ShardFacts(0, 0, 100, 4096, size, 1 << 26, (), 0.0, 0)
        return kv_blocks(Assignment("m", "m", "auto", 0, 1, "cpu", 1, Limits()), [facts], 4096)

    assert blocks(sizes["int8"]) / blocks(sizes["auto"]) == pytest.approx(times, abs=0.01)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "mixtral"])
def test_our_families_and_hosted_ones_take_it(checkpoint, name):
    """Random weights have flat logits, so that only the first tokens are held to be those of a float cache."""
    prompts = [[(7 * place + start) % 97 for place in range(40)] for start in range(8)]
    made = {}
    for kept in ("auto", "int8"):
        model = load(checkpoint(name), dtype="float32", kv_cache_dtype=kept)
        made[kept] = [tokens[0] for tokens in Driver(model).generate(prompts, 4)]
    assert sum(a == b for a, b in zip(made["auto"], made["int8"], strict=True)) >= 7
    assert load(checkpoint(name), dtype="bfloat16", kv_cache_dtype="int8").kv_bytes_per_token < (
        0.7 * load(checkpoint(name), dtype="bfloat16").kv_bytes_per_token
    )


def test_the_starter_says_the_same():
    made = {}
    greedy = SamplingParams(temperature=0.0, max_tokens=8)
    for kept in ("auto", "int8"):
        with LLM(STARTER, kv_cache_dtype=kept, kv_cache_tokens=2048) as llm:
            outputs = llm.chat([[{"role": "user", "content": question}] for question in QUESTIONS], greedy)
            made[kept] = [output.outputs[0].token_ids for output in outputs]
    assert [tokens[0] for tokens in made["int8"]] == [tokens[0] for tokens in made["auto"]]
    assert sum(a == b for a, b in zip(made["auto"], made["int8"], strict=True)) >= len(QUESTIONS) - 1


def test_another_type_is_refused_by_name():
    with pytest.raises(ModelInvalid, match=r"'fp4'.*auto, int8"):
        load(STARTER, kv_cache_dtype="fp4")
