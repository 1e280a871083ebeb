"""Adapters: what learns, and that what is written gives the same network again."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cluster.errors import InvalidRequest
from pipelines.lifecycle.declared import Lora
from pipelines.lifecycle.lora import LowRank, adapt, save


def network() -> nn.ModuleDict:
    torch.manual_seed(1)
    return nn.ModuleDict({
        "attn": nn.ModuleDict({"q_proj": nn.Linear(6, 4), "v_proj": nn.Linear(6, 4, bias=False)}),
        "lm_head": nn.Linear(6, 9),
    })  # fmt: skip


def test_all_layers_but_the_head_are_adapted_and_nothing_else_learns():
    made = network()
    assert adapt(made, Lora(rank=2)) == ["attn.q_proj", "attn.v_proj"]
    learns = {name for name, each in made.named_parameters() if each.requires_grad}
    assert learns == {f"attn.{layer}.{part}" for layer in ("q_proj", "v_proj") for part in ("down", "up")}


def test_it_begins_as_the_network_is():
    x, made = torch.randn(3, 6), network()
    before = made["attn"]["q_proj"](x)
    adapt(made, Lora(rank=2, targets=("q_proj",)))
    assert torch.equal(made["attn"]["q_proj"](x), before)


def test_what_is_written_is_what_was_learnt_in_peft_s_words(tmp_path):
    x, made, lora = torch.randn(3, 6), network(), Lora(rank=2, alpha=8.0, targets=("attn.q_proj",))
    adapt(made, lora)
    layer = made["attn"]["q_proj"]
    assert isinstance(layer, LowRank)
    nn.init.normal_(layer.up)
    save(made, lora, tmp_path)
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"], said["target_modules"]) == (2, 8.0, ["q_proj"])
    there = load_file(tmp_path / "adapter_model.safetensors")
    down, up = (there[f"base_model.model.attn.q_proj.lora_{part}.weight"] for part in "AB")
    merged = nn.functional.linear(x, layer.layer.weight + said["lora_alpha"] / said["r"] * up @ down, layer.layer.bias)
    assert torch.allclose(layer(x), merged, atol=1e-5)


def test_targets_that_are_nowhere_are_named_with_those_that_there_are():
    with pytest.raises(InvalidRequest, match=r"train.lora.targets.*query.*lm_head, q_proj, v_proj"):
        adapt(network(), Lora(targets=("query",)))
