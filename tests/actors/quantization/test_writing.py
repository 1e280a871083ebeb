import json
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from actors.models import load
from actors.quantization import writing
from actors.quantization.calibrate import Calibrated, calibrate
from actors.quantization.landing import TEMPLATES, landing
from actors.quantization.network import Network
from actors.quantization.rounding import nearest
from actors.quantization.sample import sample
from actors.quantization.writing import Plan, float32_bytes, needed_bytes, weight_bytes, write
from cluster.errors import ArchitectureUnsupported, InvalidRequest, ModelInvalid
from tests.actors.models import architectures
from tests.actors.quantization import layouts

PROJECTIONS = 14  # of two layers


def written(small, tmp_path, plan, family="llama", calibrated=None):
    said = write(small(family), tmp_path, plan, calibrated)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == said
    assert config["model_type"] == family
    return said, layouts.contents(tmp_path)


def test_int4_is_packed_by_groups(small, tmp_path):
    said, held = written(small, tmp_path, Plan("int4"))
    assert (said["quant_method"], said["format"], said["ignore"]) == ("compressed-tensors", "pack-quantized", [])
    linear, embedding = said["config_groups"]["group_0"], said["config_groups"]["group_1"]
    assert linear["targets"] == ["Linear"]
    assert embedding["targets"] == ["re:.*embed_tokens$"]
    assert linear["input_activations"] is None
    weights = linear["weights"]
    assert (weights["num_bits"], weights["type"], weights["symmetric"]) == (4, "int", True)
    assert (weights["strategy"], weights["group_size"]) == ("group", 32)
    at = "model.layers.1.mlp.down_proj"
    assert held[f"{at}.weight_packed"].shape == (64, 96 // 8)
    assert held[f"{at}.weight_packed"].dtype is torch.int32
    assert held[f"{at}.weight_scale"].shape == (64, 3)
    assert held[f"{at}.weight_scale"].dtype is torch.bfloat16
    assert held[f"{at}.weight_shape"].tolist() == [64, 96]
    assert f"{at}.weight" not in held
    assert f"{at}.bias" in held
    source = layouts.contents(small("llama"))
    assert torch.equal(held["model.norm.weight"], source["model.norm.weight"])
    wanted = nearest(source[f"{at}.weight"], 4, 32, torch.bfloat16).dequantize()
    assert torch.equal(layouts.decompressed(held, at, 4), wanted)


def test_int8_is_packed_by_rows(small, tmp_path):
    said, held = written(small, tmp_path, Plan("int8"))
    assert said["format"] == "pack-quantized"
    weights = said["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["strategy"], weights["group_size"]) == (8, "channel", None)
    assert held["lm_head.weight_packed"].shape == (98, 64 // 4)
    assert held["lm_head.weight_scale"].shape == (98, 1)


def test_for_bytes_on_both_sides(small, tmp_path):
    said, held = written(small, tmp_path, Plan("int8", activations=True))
    assert said["format"] == "int-quantized"
    inputs = said["config_groups"]["group_0"]["input_activations"]
    assert (inputs["num_bits"], inputs["strategy"], inputs["dynamic"]) == (8, "token", True)
    assert held["model.layers.0.self_attn.q_proj.weight"].dtype is torch.int8
    assert held["model.embed_tokens.weight"].dtype is torch.bfloat16
    assert said["ignore"] == ["lm_head"]


def test_float8(small, tmp_path):
    said, held = written(small, tmp_path, Plan("fp8"))
    assert said["format"] == "float-quantized"
    group = said["config_groups"]["group_0"]
    assert (group["weights"]["type"], group["weights"]["num_bits"], group["weights"]["strategy"]) == (
        "float", 8, "channel",
    )  # fmt: skip
    assert held["model.layers.0.mlp.up_proj.weight"].dtype is torch.float8_e4m3fn
    assert held["model.layers.0.mlp.up_proj.weight_scale"].shape == (96, 1)
    assert said["ignore"] == ["lm_head"]


def test_what_is_merged_is_left_alone_together(small, tmp_path):
    said, held = written(small, tmp_path, Plan("int8", ignore=("layers.0.self_attn.k_proj", r"re:1\.mlp\.down")))
    at = "model.layers.0.self_attn."
    assert said["ignore"] == [f"{at}k_proj", f"{at}q_proj", f"{at}v_proj", "model.layers.1.mlp.down_proj"]
    source = layouts.contents(small("llama"))
    assert torch.equal(held[f"{at}q_proj.weight"], source[f"{at}q_proj.weight"])
    assert f"{at}o_proj.weight_packed" in held
    load(tmp_path)


def test_the_embedding_can_be_kept(small, tmp_path):
    said, held = written(small, tmp_path, Plan("int4", embedding=False))
    assert held["model.embed_tokens.weight"].dtype is torch.bfloat16
    assert said["ignore"] == ["lm_head"]
    assert list(said["config_groups"]) == ["group_0"]
    tied, held = written(small, tmp_path / "tied", Plan("int4", embedding=False), "qwen3")
    assert tied["ignore"] == ["lm_head"], "to others a tied head is a Linear too"
    assert "model.embed_tokens.weight" in held


def test_sizes(small, tmp_path):
    whole = float32_bytes(small("qwen3"))
    assert weight_bytes(small("qwen3")) == whole // 2
    for to, most in (("int8", 0.29), ("int4", 0.16)):
        write(small("qwen3"), tmp_path / to, Plan(to))
        assert weight_bytes(tmp_path / to) < most * whole


def test_columns_without_groups_are_named(tmp_path):
    architectures.make("llama-odd", tmp_path / "odd")
    said = write(tmp_path / "odd", tmp_path / "small", Plan("int4"))
    kinds = {group["weights"]["num_bits"] for group in said["config_groups"].values()}
    assert kinds == {8}, "66, 77 and 108 columns are no groups of 32"
    assert load(tmp_path / "small").layers[0].down.weight.bits == 8


def test_large_models_are_cut_into_files(small, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 9_000)
    write(small("llama"), tmp_path, Plan("int4"))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = {file.name for file in tmp_path.glob("*.safetensors")}
    assert len(files) > 2
    assert files == set(index["weight_map"].values())
    assert set(index["weight_map"]) == set(layouts.contents(tmp_path))
    assert index["metadata"]["total_size"] == weight_bytes(tmp_path)
    load(tmp_path)


def test_weights_are_never_written_over(small, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"somebody's")
    with pytest.raises(InvalidRequest, match="holds weights"):
        write(small("llama"), tmp_path, Plan("int4"))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"somebody's"]


def test_what_lies_beside_comes_along(small, tmp_path):
    source = small("qwen3")
    (source / "chat_template.jinja").write_text("x")
    (source / "evaluation.json").write_text("{}")
    write(source, tmp_path, Plan("int8"))
    (source / "evaluation.json").unlink()
    assert (tmp_path / "chat_template.jinja").read_text() == "x"
    assert not (tmp_path / "evaluation.json").exists(), "its scores are the float model's"


def test_calibrated_numbers_take_the_place_of_rounded_ones(small, tmp_path):
    at = "model.layers.0.mlp.down_proj"
    chosen = nearest(torch.randn(64, 96), 4, 32, torch.bfloat16)
    norm = torch.full((64,), 3.0)
    _, held = written(
        small,
        tmp_path,
        Plan("int4"),
        calibrated=Calibrated({at: chosen}, {"model.layers.0.input_layernorm.weight": norm}),
    )
    assert torch.equal(layouts.decompressed(held, at, 4), chosen.dequantize())
    assert torch.equal(held["model.layers.0.input_layernorm.weight"], norm.bfloat16())


def test_an_architecture_without_merged_layers_is_refused(tmp_path):
    architectures.make("gpt2", tmp_path / "gpt2")
    with pytest.raises(ArchitectureUnsupported, match="not quantized"):
        write(tmp_path / "gpt2", tmp_path / "small", Plan("int8"))
    assert not (tmp_path / "small").exists()


def altered(small, tmp_path, change):
    """A copy of the small model whose tensors `change` has changed."""
    source = tmp_path / "source"
    source.mkdir()
    tensors = layouts.contents(small("qwen3"))
    change(tensors)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(small("qwen3") / "config.json", source / "config.json")
    return source


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_rounded(small, tmp_path, wrong):
    def change(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = wrong

    source = altered(small, tmp_path, change)
    with pytest.raises(ModelInvalid, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN or infinities"):
        write(source, tmp_path / "made", Plan("int4"))
    for method in ("gptq", "awq"):
        held = sample(
            iter([[("x" * 300, True)]]), lambda text: [ord(letter) % 90 for letter in text], 2, 128, apart=False
        )
        with pytest.raises(ModelInvalid, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
            calibrate(Network(source), held, method, 4)


def test_a_folder_that_lacks_weights_is_refused(small, tmp_path):
    source = altered(small, tmp_path, lambda tensors: tensors.pop("model.layers.1.self_attn.v_proj.weight"))
    with pytest.raises(ModelInvalid, match=r"lack model\.layers\.1\.self_attn\.v_proj\.weight"):
        write(source, tmp_path / "made", Plan("int8"))
    assert not (tmp_path / "made").exists()


def test_a_vision_tower_is_left_alone(small, tmp_path):
    def change(tensors):
        for name in list(tensors):
            tensors[name.replace("model.", "language_model.model.", 1)] = tensors.pop(name)
        for part in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1"):
            tensors[f"vision_tower.vision_model.encoder.layers.0.{part}.weight"] = torch.ones(8, 8)

    source = altered(small, tmp_path, change)
    said = write(source, tmp_path / "made", Plan("int8"))
    held = layouts.contents(tmp_path / "made")
    assert "language_model.model.layers.0.self_attn.q_proj.weight_packed" in held
    towers = sorted(name for name in held if name.startswith("vision_tower"))
    assert all(name.endswith(".weight") for name in towers)
    assert {name.removesuffix(".weight") for name in towers} <= set(said["ignore"])


def test_what_was_calibrated_under_another_name_is_not_lost(small, tmp_path):
    other = Calibrated({"decoder.layers.0.mlp.down_proj": nearest(torch.randn(64, 96), 4, 32, torch.bfloat16)})
    with pytest.raises(AssertionError, match="calls it otherwise"):
        write(small("llama"), tmp_path, Plan("int4"), other)


def test_the_room_that_is_needed_is_known_before(small, tmp_path):
    for to in ("int8", "int4"):
        write(small("llama"), tmp_path / to, Plan(to))
        took = weight_bytes(tmp_path / to)
        assert took <= needed_bytes(small("llama"), Plan(to)) <= 1.3 * took


def test_a_full_disk_is_said(small, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(writing, "save_file", full)
    with pytest.raises(InvalidRequest, match=r"--out: .*No space left on device"):
        write(small("llama"), tmp_path, Plan("int8"))


def test_templates_in_a_folder_come_along(small, tmp_path):
    source = altered(small, tmp_path, lambda tensors: None)
    (source / TEMPLATES).mkdir()
    (source / TEMPLATES / "tool_use.jinja").write_text("t")
    with landing(tmp_path / "made") as part:
        write(source, part, Plan("int8"))
    assert (tmp_path / "made" / TEMPLATES / "tool_use.jinja").read_text() == "t"
    with landing(tmp_path / "made") as part:  # it is ours, and may be made anew
        write(source, part, Plan("int8"))
