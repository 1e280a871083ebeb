"""What is refused before a weight is read, and what the refusal says."""

import json
from pathlib import Path

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from actors.models import load
from actors.models.config import TRIED, nearest, read_config
from cluster.errors import ArchitectureUnsupported, ModelInvalid
from tests.actors.models import architectures

LLAMA = {
    "model_type": "llama", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip


def folder(path: Path, **config: object) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"a": 1}', '{"model_type": 7}', "[" * 100_000, "\udcff"])
def test_not_a_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ModelInvalid):
        read_config(tmp_path)


def test_no_folder():
    with pytest.raises(ModelInvalid, match="nowhere: there is no such folder; give a folder"):
        load("nowhere")
    with pytest.raises(ModelInvalid, match="no such folder; names of the Hugging Face hub are not fetched"):
        load("Qwen/Qwen3-0.6B")
    with pytest.raises(ModelInvalid, match="this is a file"):
        load(__file__)


def test_too_large(tmp_path):
    (tmp_path / "config.json").write_text(" " * (17 * 2**20))
    with pytest.raises(ModelInvalid, match="too large"):
        read_config(tmp_path)


def test_code_in_the_folder_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    assert read_config(folder(tmp_path, **LLAMA, auto_map=auto_map)).model_type == "llama"
    with pytest.raises(ArchitectureUnsupported, match="never run"):
        read_config(folder(tmp_path, model_type="lama2", auto_map=auto_map))


@pytest.mark.parametrize(
    ("kind", "near"), [("qwen3_mo", "qwen3_moe"), ("vit", "works"), ("gemma3text", "gemma3_text"), ("t5", "works")]
)
def test_unknown_architectures_name_the_nearest(tmp_path, kind, near):
    with pytest.raises(ArchitectureUnsupported, match=f"'{kind}'.*{near}"):
        load(folder(tmp_path, model_type=kind))


def test_only_what_is_tried_is_suggested(tmp_path):
    assert set(TRIED) == {architecture.kind for architecture in architectures.ALL.values()}
    for kind in ["zork", "xcustom", "rwkv", "xlstm", "mamba2x", *sorted(CONFIG_MAPPING)]:
        assert nearest(kind) in TRIED
    with pytest.raises(ArchitectureUnsupported, match="llama works"):
        load(folder(tmp_path, model_type="zork"))
    with pytest.raises(ArchitectureUnsupported, match="llama with a language model's head works"):
        load(folder(tmp_path, model_type="mamba", architectures=["MambaForSequenceClassification"]))


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "minimax", "recurrent_gemma", "falcon_h1", "nemotron_h"])
def test_a_state_that_is_no_cache(tmp_path, kind):
    with pytest.raises(ArchitectureUnsupported, match=f"{kind} has layers of"):
        load(folder(tmp_path, model_type=kind))


def test_an_encoder_in_front(tmp_path):
    with pytest.raises(ArchitectureUnsupported, match="encoder"):
        load(folder(tmp_path, model_type="bart", is_encoder_decoder=True))


def test_quantized_weights(tmp_path):
    with pytest.raises(ArchitectureUnsupported, match="no quantized weights"):
        load(folder(tmp_path, model_type="gpt2", quantization_config={"quant_method": "gptq", "bits": 4}))


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "wide"}, {"num_hidden_layers": None}, {"num_attention_heads": 0}, {"hidden_size": -32},
        {"num_key_value_heads": 3}, {"vocab_size": 0}, {"hidden_act": "no such"}, {"rms_norm_eps": "small"},
        {"rope_scaling": {"rope_type": "no such", "factor": 2.0}}, {"rope_scaling": {"rope_type": "yarn"}},
        {"rope_scaling": 7}, {"head_dim": 7}, {"num_hidden_layers": 10**12}, {"max_position_embeddings": -1},
        {"num_hidden_layers": 0}, {"intermediate_size": 0},
    ],
)  # fmt: skip
def test_fields_that_cannot_be(tmp_path, change):
    with pytest.raises(ModelInvalid):
        load(folder(tmp_path, **{**LLAMA, **change}))


def test_other_heads_than_a_language_model(tmp_path):
    with pytest.raises(ArchitectureUnsupported, match="LlamaForSequenceClassification"):
        load(folder(tmp_path, **LLAMA, architectures=["LlamaForSequenceClassification"]))


def test_a_dtype_nobody_knows(tmp_path):
    with pytest.raises(ModelInvalid, match="int4"):
        load(folder(tmp_path, **LLAMA), dtype="int4")


@pytest.mark.parametrize("dtype", ["int8", "float64", "float8_e4m3fn", "no such"])
def test_a_dtype_that_is_not_computed_in(tmp_path, dtype):
    with pytest.raises(ModelInvalid):
        load(folder(tmp_path, **LLAMA, dtype=dtype))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_progress_rises_to_all(checkpoint, name):
    heard: list[tuple[int, int]] = []
    load(checkpoint(name), progress=lambda done, total: heard.append((done, total)))
    done = [so_far for so_far, _ in heard]
    assert done == sorted(done)
    assert heard[-1][0] == heard[-1][1] > 0
    assert len(heard) > 20


def test_a_weight_is_missing(checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    for name, victim in [("llama", "model.layers.1.mlp.up_proj.weight"), ("gpt2", "transformer.h.1.mlp.c_fc.weight")]:
        source = checkpoint(name)
        tensors = load_file(source / "model.safetensors")
        del tensors[victim]
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text((source / "config.json").read_text())
        with pytest.raises(ModelInvalid, match=victim):
            load(tmp_path)
        tensors[victim] = torch.zeros(3, 3)
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(ModelInvalid, match=rf"{victim} has shape \[3, 3\]"):
            load(tmp_path)
