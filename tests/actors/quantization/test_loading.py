"""Folders in integers run: rounded at load, or written before; on one rank and on two, with the same results."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from safetensors.torch import save_file

from actors.models import decoder, layers, load, weights
from actors.models.checkpoint import Checkpoint
from actors.models.family import describe
from actors.models.weights import Loader
from actors.quantization.measure import BLOCK_TOKENS, prefill
from actors.quantization.rounding import group_for, nearest
from actors.quantization.sensitivity import rounded
from actors.quantization.writing import Plan, write
from cluster.errors import ModelInvalid
from tests.actors.kernels.test_fused import Threads
from tests.actors.quantization import layouts
from tests.actors.quantization.conftest import FAMILIES

TOKENS = torch.randint(0, 98, (3, 21), generator=torch.Generator().manual_seed(2))
# of logits, relative to their spread: random weights and outliers in the norms are a harsh test
FAR = {"int8": 0.2, "int4": 0.8, "fp8": 0.4}


@pytest.fixture
def plain(monkeypatch):
    """No kernels: the arithmetic of this room alone."""
    monkeypatch.setattr(decoder, "fuse", lambda *_: None)
    for room in (layers, weights):
        monkeypatch.setattr(room, "packed", lambda weight: weight)


def logits(model):
    blocks = -(-TOKENS.shape[1] // BLOCK_TOKENS)
    model.allocate(len(TOKENS) * blocks, BLOCK_TOKENS)
    return model.forward(prefill(TOKENS, torch.arange(TOKENS.numel())))


def apart(found, wanted):
    return float((found - wanted).norm() / (wanted - wanted.mean(-1, keepdim=True)).norm())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("to", FAR)
def test_rounding_at_load_computes_what_rounded_floats_do(small, family, to, tmp_path, plain):
    held = layouts.contents(small(family))
    floats = {
        name: rounded(tensor, to) if tensor.dim() == 2 and (to != "fp8" or "layers" in name) else tensor.float()
        for name, tensor in held.items()
    }
    shutil.copy(small(family) / "config.json", tmp_path)
    save_file(floats, tmp_path / "model.safetensors")
    model = load(small(family), dtype="float32", quantization=to)
    assert isinstance(model.embedding, torch.Tensor) == (to == "fp8")
    found = logits(model)
    torch.testing.assert_close(found, logits(load(tmp_path, dtype="float32")), rtol=1e-4, atol=1e-4)
    assert 1e-3 < apart(found, logits(load(small(family), dtype="float32"))) < FAR[to]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("to", FAR)
def test_kernels_compute_the_same(small, family, to):
    """Whatever this machine has for kernels, near the floats."""
    found = logits(load(small(family), dtype="float32", quantization=to))
    assert apart(found, logits(load(small(family), dtype="float32"))) < FAR[to]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("to", FAR)
def test_a_written_folder_computes_what_its_numbers_say(small, family, to, tmp_path, plain):
    """Against the float model with every matrix replaced by what an independent decoder makes of the file."""
    source = small(family)
    write(source, tmp_path / "small", Plan(to))
    held, decoded = layouts.contents(tmp_path / "small"), {}
    for name, tensor in layouts.contents(source).items():
        layer = name.removesuffix(".weight")
        if f"{layer}.weight_packed" in held:
            bits = 32 * held[f"{layer}.weight_packed"].shape[1] // tensor.shape[1]
            decoded[name] = layouts.decompressed(held, layer, bits)
        elif f"{layer}.weight_scale" in held:
            decoded[name] = held[name].float() * held[f"{layer}.weight_scale"].float()
        else:
            decoded[name] = tensor.float()
    (tmp_path / "decoded").mkdir()
    shutil.copy(source / "config.json", tmp_path / "decoded")
    save_file(decoded, tmp_path / "decoded" / "model.safetensors")
    wanted = logits(load(tmp_path / "decoded", dtype="float32"))
    torch.testing.assert_close(logits(load(tmp_path / "small", dtype="float32")), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("to", ["int8", "int4", "fp8"])
@pytest.mark.parametrize("written", [False, True])
def test_two_ranks_equal_one(small, to, written, tmp_path, plain):
    source, quantization = small("llama"), to
    if written:
        write(source, tmp_path, Plan(to))
        source, quantization = tmp_path, None
    alone = logits(load(source, dtype="float32", quantization=quantization))
    pieces, barrier = [None, None], Barrier(2)
    worlds = [Threads(rank, pieces, barrier) for rank in range(2)]
    ranks = [load(source, dtype="float32", quantization=quantization, world=world) for world in worlds]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(logits, ranks))
    assert torch.equal(made[0], made[1])
    torch.testing.assert_close(made[0], alone, rtol=1e-4, atol=1e-4)


def test_ranks_read_their_slices_of_the_same_numbers(small):
    """intermediate 96 is three groups of 32: one rank has one, the other two."""
    family = describe(load_config(small("llama")))
    loaders = [
        Loader(family, Checkpoint(small("llama")), world, torch.float32, "cpu", quantization="int4")
        for world in (Threads(0, [], None), Threads(1, [], None))
    ]
    assert [loader.width.count for loader in loaders] == [32, 64]
    name = "model.layers.0.mlp.down_proj"
    whole = nearest(Checkpoint(small("llama")).piece(name + ".weight"), *group_for(4, 96))
    parts = [loader.matrices.read(name, (64, 96), last=loader.width.scaled(1)) for loader in loaders]
    assert torch.equal(torch.cat([part.values for part in parts], 1), whole.values)
    assert torch.equal(torch.cat([part.scales for part in parts], 1), whole.scales)


def load_config(path):
    from actors.models.config import read_config

    return read_config(path)


def test_progress_ends_at_the_whole(small, tmp_path):
    write(small("llama"), tmp_path, Plan("int4"))
    for path, quantization in ((small("llama"), "int8"), (tmp_path, None)):
        heard = []
        load(path, quantization=quantization, progress=lambda done, total, heard=heard: heard.append((done, total)))
        assert len(heard) > 20
        assert heard == sorted(heard)
        assert heard[-1][0] == heard[-1][1]


def test_a_projection_left_in_floats_joins_the_others(small, tmp_path, plain):
    """Not written so by us, but by others: q in floats beside k and v in bytes."""
    write(small("llama"), tmp_path, Plan("int8"))
    held = layouts.contents(tmp_path)
    name = "model.layers.0.self_attn.q_proj"
    for end in ("weight_packed", "weight_scale", "weight_shape"):
        del held[f"{name}.{end}"]
    held[f"{name}.weight"] = layouts.contents(small("llama"))[f"{name}.weight"]
    save_file(held, tmp_path / "model.safetensors")
    model = load(tmp_path, dtype="float32")
    assert isinstance(model.layers[0].qkv, layers.Linear)
    assert isinstance(model.layers[1].qkv, layers.QuantizedLinear)
    assert apart(logits(model), logits(load(small("llama"), dtype="float32"))) < FAR["int8"]


def test_projections_of_unlike_kinds_are_refused_with_the_folder(small, tmp_path):
    write(small("llama"), tmp_path / "int4", Plan("int4"))
    write(small("llama"), tmp_path / "int8", Plan("int8"))
    name = "model.layers.0.self_attn.q_proj."
    other = {key: tensor for key, tensor in layouts.contents(tmp_path / "int8").items() if key.startswith(name)}
    save_file(layouts.contents(tmp_path / "int4") | other, tmp_path / "int4" / "model.safetensors")
    config = tmp_path / "int4" / "config.json"
    said = json.loads(config.read_text())
    said["quantization_config"]["config_groups"] = {}
    config.write_text(json.dumps(said))
    with pytest.raises(ModelInvalid, match=r"/int4: model\.layers\.0\.self_attn\.q_proj.*quantized unlike"):
        load(tmp_path / "int4")


def test_what_is_quantized_is_not_rounded_again(small, tmp_path):
    write(small("qwen3"), tmp_path, Plan("int8"))
    with pytest.raises(ModelInvalid, match="quantized already"):
        load(tmp_path, quantization="int4")
    with pytest.raises(ModelInvalid, match="quantized already"):
        write(tmp_path, tmp_path / "again", Plan("int4"))


def test_tied_halves_that_agree_are_one(small, tmp_path):
    """A folder may hold the head of a tied model a second time."""
    write(small("qwen3"), tmp_path, Plan("int4"))
    held = layouts.contents(tmp_path)
    for end in ("weight_packed", "weight_scale", "weight_shape"):
        held[f"lm_head.{end}"] = held[f"model.embed_tokens.{end}"]
    save_file({name: tensor.clone() for name, tensor in held.items()}, tmp_path / "model.safetensors")
    twice = logits(load(tmp_path, dtype="float32"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"]
    write(small("qwen3"), tmp_path / "once", Plan("int4"))
    assert torch.equal(twice, logits(load(tmp_path / "once", dtype="float32")))
