"""Low-rank adapters: what PEFT's configuration means for each weight, and what does not fit."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.registry import adapter
from actors.registry.merging import Strategy
from cluster.errors import ModelInvalid
from tests.actors.registry.conftest import write_model

LAYERS = ("model.layers.0.q_proj", "model.layers.10.q_proj", "model.layers.0.v_proj")
PREFIX = "base_model.model."


@pytest.fixture
def ours(tmp_path):
    torch.manual_seed(0)
    weights = {f"{layer}.weight": torch.randn(4, 4) for layer in LAYERS} | {"norm": torch.ones(4).bfloat16()}
    return write_model(tmp_path / "ours", weights)


@pytest.fixture
def write(tmp_path):
    """Writes an adapter of these ranks by layer; its pairs."""

    def written(ranks, tensors=None, **config):
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        pairs = {layer: (torch.randn(4, rank), torch.randn(rank, 4)) for layer, rank in ranks.items()}
        held = {f"{PREFIX}{layer}.lora_B.weight": up for layer, (up, _) in pairs.items()}
        held |= {f"{PREFIX}{layer}.lora_A.weight": down for layer, (_, down) in pairs.items()}
        save_file(held | (tensors or {}), folder / adapter.WEIGHTS)
        (folder / adapter.CONFIG).write_text(json.dumps({"r": 2, "lora_alpha": 4, **config}))
        return folder, pairs

    return written


def changes(ours, folder, tmp_path, weight=1.0):
    """What was added to each weight."""
    into = tmp_path / "into"
    into.mkdir(exist_ok=True)
    adapter.add(ours, folder, into, weight)
    before, after = (load_file(path / "model.safetensors") for path in (ours, into))
    assert torch.equal(before["norm"], after["norm"])
    return {layer: after[f"{layer}.weight"] - before[f"{layer}.weight"] for layer in LAYERS}


@pytest.mark.parametrize(
    ("config", "ranks", "scales"),
    [
        ({}, (2, 2, 2), (2, 2, 2)),
        ({"rank_pattern": {"v_proj": 1}}, (2, 2, 1), (2, 2, 4)),
        ({"alpha_pattern": {"q_proj": 1}}, (2, 2, 2), (0.5, 0.5, 2)),
        ({"rank_pattern": {"layers.0.q_proj": 3}}, (3, 2, 2), (4 / 3, 2, 2)),
        ({"rank_pattern": {r".*\.0\..*": 1, "q_proj": 3}}, (1, 3, 1), (4, 4 / 3, 4)),
        ({"rank_pattern": {"proj": 3}}, (2, 2, 2), (2, 2, 2)),  # a part of a name is none
        ({"rank_pattern": {"0.q_proj": 3}}, (3, 2, 2), (4 / 3, 2, 2)),  # and 10 does not end in the part 0
        ({"rank_pattern": {"v_proj": 1}, "alpha_pattern": {"v_proj": 3}}, (2, 2, 1), (2, 2, 3)),
        ({"alpha_pattern": {"v_proj": 6}, "use_rslora": True}, (2, 2, 2), (4 / 2**0.5, 4 / 2**0.5, 6 / 2**0.5)),
        ({"rank_pattern": None, "alpha_pattern": {}}, (2, 2, 2), (2, 2, 2)),
    ],
)
def test_patterns_mean_what_they_mean_to_peft(ours, write, tmp_path, config, ranks, scales):
    folder, pairs = write(dict(zip(LAYERS, ranks, strict=True)), **config)
    for weight in (1.0, 0.5):
        found = changes(ours, folder, tmp_path, weight)
        for layer, scale in zip(LAYERS, scales, strict=True):
            up, down = pairs[layer]
            torch.testing.assert_close(found[layer], weight * scale * up @ down, atol=1e-5, rtol=1e-4)


def test_a_layer_that_keeps_its_weight_turned_over(ours, write, tmp_path):
    folder, pairs = write({LAYERS[0]: 2}, fan_in_fan_out=True)
    up, down = pairs[LAYERS[0]]
    torch.testing.assert_close(changes(ours, folder, tmp_path)[LAYERS[0]], 2 * (up @ down).T, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"r": 0}, "names no r and lora_alpha"), ({"r": True}, "names no r and lora_alpha"),
        ({"lora_alpha": math.inf}, "names no r and lora_alpha"), ({"r": 3}, "has the rank 3, and the weights have 2"),
        ({"rank_pattern": {"q_proj": 1}}, "q_proj has the rank 1, and the weights have 2"),
        ({"rank_pattern": ["q_proj"]}, "a rank_pattern that is no object"),
        ({"rank_pattern": {"q_proj": 2.5}}, "a rank_pattern that is no object"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern that is no object"),
        ({"alpha_pattern": {"q_proj": "4"}}, "alpha_pattern that is no object"),
        ({"use_dora": True}, "use_dora"),
    ],
)  # fmt: skip
def test_a_configuration_that_says_something_else_is_refused(ours, write, tmp_path, config, problem):
    folder, _ = write({LAYERS[0]: 2}, **config)
    with pytest.raises(ModelInvalid, match=problem):
        changes(ours, folder, tmp_path)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({f"{PREFIX}x.lora_A.weight": torch.ones(2, 4)}, r"fits no weight of ours \(x.weight\)"),
        ({f"{PREFIX}{LAYERS[1]}.lora_A.weight": torch.ones(2, 5)}, "fits no weight of ours"),
        ({f"{PREFIX}{LAYERS[0]}.lora_B.bias": torch.ones(4)}, "holds more than low-rank pairs"),
        ({f"{PREFIX}lm_head.weight": torch.ones(4)}, r"more than low-rank pairs of weights \(.*lm_head.weight\)"),
        ({f"{PREFIX}embed.lora_embedding_A": torch.ones(4)}, "holds more than low-rank pairs"),
    ],
)
def test_what_is_no_pair_is_refused(ours, write, tmp_path, tensors, problem):
    folder, _ = write({LAYERS[0]: 2}, tensors)
    with pytest.raises(ModelInvalid, match=problem):
        changes(ours, folder, tmp_path)


def test_a_weight_of_whole_numbers_is_refused(registry, ours, write, tmp_path):
    write_model(ours, {f"{LAYERS[0]}.weight": torch.ones(4, 4, dtype=torch.int8), "norm": torch.ones(4)})
    folder, _ = write({LAYERS[0]: 2})
    registry.push("chat", ours, author="ada")
    with pytest.raises(ModelInvalid, match=r"whole numbers .*I8"):
        registry.merge("chat", str(folder), author="ada", strategy=Strategy("lora", 1.0))
