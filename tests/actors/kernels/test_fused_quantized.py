"""The compiled step with weights of 8 and 4 bits: against the plain one, and two ranks against one."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from actors.models import load
from actors.models.kernels.quantized import PackedWeight, packed
from actors.models.layers import QuantizedLinear
from actors.models.quantized import QuantizedWeight
from tests.actors.kernels.batches import scattered
from tests.actors.kernels.test_fused import BATCHES, Threads, fill

SHAPE = {
    "vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "intermediate_size": 128, "max_position_embeddings": 512,
}  # fmt: skip
FAMILIES = {"llama": {"attention_bias": True, "mlp_bias": True}, "qwen3": {}, "gemma": {}}
KINDS = [(8, 0), (8, 32), (4, 32)]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp(request.param)
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model(request.param, **SHAPE, **FAMILIES[request.param])
    ).save_pretrained(path)
    return path


def rounded(weight, bits, group):
    top = 2 ** (bits - 1) - 1
    rows, columns = weight.shape
    parts = weight.float().view(rows, -1, group or columns)
    scales = parts.abs().amax(-1) / top
    return QuantizedWeight(
        bits, group or columns, (parts / scales[..., None]).round().to(torch.int8).view(rows, columns), scales
    )


def quantize(model, bits, group, embedding=False):
    """Every product of `model` by a quantized weight, as loading makes them."""
    for layer in model.layers:
        for name in ("qkv", "output", "gate_up", "down"):
            linear = getattr(layer, name)
            setattr(layer, name, QuantizedLinear(rounded(linear.weight, bits, group), linear.bias))
    head = rounded(model.head.weight, 8, 0)
    model.head = QuantizedLinear(head)
    if embedding:
        model.embedding = packed(rounded(model.embedding, 8, group))
    return model


@pytest.mark.parametrize(("bits", "group"), KINDS)
def test_equals_the_plain_step(folder, bits, group):
    for dtype, tolerance in (("float32", 1e-3), ("bfloat16", 0.15)):
        model = quantize(load(folder, dtype=dtype), bits, group, embedding=True)
        assert isinstance(model.head.weight, PackedWeight)
        for counts, befores in BATCHES:
            batch = scattered(counts, list(befores))
            model.allocate(400, batch.block_tokens)
            fill(model)
            assert model.determine()  # without it, small groups of 4 bits may be merged
            made = model.forward(batch)
            fill(model)
            model.fused = None
            plain = model.forward(batch)
            # one place of x rounded the other way moves a sum by a step of 1/127, and what later attends to it: seldom,
            # so most must agree closely
            assert ((made - plain) / plain.std()).abs().quantile(0.75) < tolerance


@pytest.mark.parametrize(("bits", "group"), KINDS)
def test_is_the_step_of_the_dequantized_weights(folder, bits, group):
    model, exact = quantize(load(folder, dtype="float32"), bits, group), load(folder, dtype="float32")
    for layer in exact.layers:
        for linear in (layer.qkv, layer.output, layer.gate_up, layer.down):
            linear.weight = rounded(linear.weight, bits, group).dequantize()
    exact.head.weight = rounded(exact.head.weight, 8, 0).dequantize()
    for counts, befores in BATCHES:
        batch = scattered(counts, list(befores))
        for each in (model, exact):
            each.allocate(400, batch.block_tokens)
            fill(each)
        made, wanted = model.forward(batch), exact.forward(batch)
        assert (made - wanted).norm() / wanted.norm() < 0.03


@pytest.mark.parametrize(("bits", "group"), KINDS)
def test_two_ranks_equal_one(folder, bits, group):
    pieces, barrier = [None, None], Barrier(2)
    alone = quantize(load(folder, dtype="float32"), bits, group)
    ranks = [load(folder, dtype="float32", world=Threads(rank, pieces, barrier)) for rank in range(2)]
    ranks = [quantize(model, bits, group) for model in ranks]
    for counts, _ in BATCHES:
        batch = scattered(counts, [0] * len(counts))
        for model in (alone, *ranks):
            model.allocate(400, batch.block_tokens)
        assert all(model.fused is not None for model in ranks)
        with ThreadPoolExecutor(2) as pool:
            made = list(pool.map(lambda model, batch=batch: model.forward(batch), ranks))
        assert torch.equal(made[0], made[1])
        whole = alone.forward(batch)
        # a scale of a whole row is that of a rank's half of it where columns are cut: other integers, as near
        assert (made[0] - whole).norm() / whole.norm() < (0.3 if bits == 4 else 0.03)
