"""Every layout that is read, slice by slice, against encoders that share no code with the readers."""

import pytest
import torch

from actors.models.checkpoint import Checkpoint
from actors.models.matrices import Matrices
from actors.quantization.declared import declared
from actors.quantization.stored import StoredMatrices
from cluster.errors import ModelInvalid
from tests.actors.quantization import layouts

ROWS, COLUMNS, GROUP = 24, 64, 16
MADE = torch.Generator().manual_seed(3)
SCALES = (torch.rand(ROWS, COLUMNS // GROUP, generator=MADE) + 0.1).half()
CUTS = [
    (slice(None), slice(None)),
    (slice(5, 19), slice(None)),
    (slice(None), slice(16, 48)),
    (slice(3, 4), slice(48, 64)),
]
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}


def integers(bits, rows=ROWS, columns=COLUMNS):
    middle = 1 << (bits - 1)
    return torch.randint(-middle, middle, (rows, columns), generator=MADE).to(torch.int8)


def stored(path, tensors, quantization):
    checkpoint = Checkpoint(layouts.folder(path, {"a.b": tensors}, quantization))
    found = declared(path)
    assert found is not None
    return StoredMatrices(checkpoint, found)


def whole(numbers, scales, zeros):
    each = COLUMNS // scales.shape[1]
    return (numbers.float() - zeros.float().repeat_interleave(each, 1)) * scales.float().repeat_interleave(each, 1)


def check(matrices, wanted, cuts=CUTS):
    for first, last in cuts:
        found = matrices.read("a.b", (ROWS, COLUMNS), first, last)
        torch.testing.assert_close(found.dequantize(), wanted[first, last], rtol=0, atol=0)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("groups", [1, COLUMNS // GROUP])
@pytest.mark.parametrize("centred", [True, False])
def test_compressed_tensors_packed(tmp_path, bits, groups, centred):
    numbers, scales = integers(bits), SCALES[:, :groups].contiguous()
    zeros = torch.zeros(ROWS, groups, dtype=torch.int8) if centred else integers(bits, ROWS, groups)
    tensors = layouts.compressed(numbers, scales, bits, None if centred else zeros)
    check(stored(tmp_path, tensors, COMPRESSED), whole(numbers, scales, zeros))


@pytest.mark.parametrize("shape", [(ROWS, 1), (ROWS, COLUMNS // GROUP), (1,), ()])
def test_compressed_tensors_bytes(tmp_path, shape):
    numbers = integers(8)
    scales = torch.tensor(0.25).expand(shape).contiguous() if len(shape) < 2 else SCALES[:, : shape[1]].contiguous()
    matrices = stored(tmp_path, {"weight": numbers, "weight_scale": scales}, COMPRESSED | {"format": "int-quantized"})
    wide = scales.view(1, 1).expand(ROWS, 1) if len(shape) < 2 else scales
    check(matrices, whole(numbers, wide, torch.zeros_like(wide)))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("form", "taken_off"), [("gptq", 1), ("gptq_v2", 0)])
def test_gptq(tmp_path, bits, form, taken_off):
    numbers, zeros = integers(bits), integers(bits, ROWS, SCALES.shape[1]).clamp(max=(1 << (bits - 1)) - 2)
    tensors = layouts.gptq(numbers, SCALES, bits, zeros, taken_off)
    matrices = stored(tmp_path, tensors, {"quant_method": "gptq", "bits": bits, "checkpoint_format": form})
    check(matrices, whole(numbers, SCALES, zeros))
    assert matrices.group("a.b", COLUMNS) == GROUP


def test_gptq_of_the_middle_has_no_zeros(tmp_path):
    tensors = layouts.gptq(integers(4), SCALES, 4, torch.zeros(SCALES.shape))
    assert stored(tmp_path, tensors, {"quant_method": "gptq", "bits": 4}).read("a.b", (ROWS, COLUMNS)).zeros is None


def test_act_order_is_refused(tmp_path):
    tensors = layouts.gptq(integers(4), SCALES, 4, torch.zeros(SCALES.shape))
    tensors["g_idx"] = tensors["g_idx"].flip(0)
    matrices = stored(tmp_path, tensors, {"quant_method": "gptq", "bits": 4, "desc_act": True})
    with pytest.raises(ModelInvalid, match=r"a\.b\.g_idx.*act-order"):
        matrices.read("a.b", (ROWS, COLUMNS))


def test_awq(tmp_path):
    numbers, zeros = integers(4), integers(4, ROWS, SCALES.shape[1])
    matrices = stored(
        tmp_path, layouts.awq(numbers, SCALES, zeros), {"quant_method": "awq", "bits": 4, "version": "gemm"}
    )
    check(matrices, whole(numbers, SCALES, zeros))


@pytest.mark.parametrize("block", [None, [8, 16], [128, 128]])
def test_fp8(tmp_path, block):
    weight = torch.randn(ROWS, COLUMNS, generator=MADE).to(torch.float8_e4m3fn)
    if block is None:
        scales = torch.rand(ROWS, 1, generator=MADE) + 0.1
        wanted, name = weight.float() * scales, "weight_scale"
    else:
        high, wide = -(-ROWS // block[0]), -(-COLUMNS // block[1])
        scales, name = torch.rand(high, wide, generator=MADE) + 0.1, "weight_scale_inv"
        wanted = (
            weight.float() * scales.repeat_interleave(block[0], 0)[:ROWS].repeat_interleave(block[1], 1)[:, :COLUMNS]
        )
    path = layouts.folder(
        tmp_path, {"a.b": {"weight": weight, name: scales}}, {"quant_method": "fp8", "weight_block_size": block}
    )
    matrices = Matrices(Checkpoint(path), None, lambda taken: None)
    for first, last in CUTS:
        assert matrices.read("a.b", (ROWS, COLUMNS), first, last) is None
        into = torch.empty_like(wanted[first, last])
        matrices.floats("a.b", into, (ROWS, COLUMNS), first, last)
        assert torch.equal(into, wanted[first, last])


def test_fp8_without_its_scale_is_refused(tmp_path):
    tensors = {"weight": torch.ones(ROWS, COLUMNS).to(torch.float8_e4m3fn)}
    path = layouts.folder(tmp_path, {"a.b": tensors}, {"quant_method": "fp8"})
    matrices = Matrices(Checkpoint(path), None, lambda taken: None)
    with pytest.raises(ModelInvalid, match=r"model\.safetensors.*a\.b\.weight_scale is missing"):
        matrices.floats("a.b", torch.empty(ROWS, COLUMNS), (ROWS, COLUMNS))


def test_a_cut_through_a_group_is_named(tmp_path):
    matrices = stored(tmp_path, layouts.compressed(integers(4), SCALES, 4), COMPRESSED)
    with pytest.raises(ModelInvalid, match=r"a\.b.*columns 8 and 16, within a group of 16"):
        matrices.read("a.b", (ROWS, COLUMNS), None, slice(8, 16))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quant_method": "bitsandbytes"}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 3}, "GPTQ with 3 bits"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "marlin"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "gemv"),
        (COMPRESSED | {"format": "nvfp4-pack-quantized"}, "nvfp4"),
        (COMPRESSED | {"config_groups": {"g": {"weights": {"num_bits": 2}}}}, "2 bits"),
        (COMPRESSED | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24"),
        (COMPRESSED | {"config_groups": [1]}, r": config_groups of quantization_config is \[1\], where"),
        (COMPRESSED | {"config_groups": {"g": [1]}}, r"config_groups\.g of quantization_config is \[1\]"),
        (COMPRESSED | {"config_groups": {"g": {"weights": 7}}}, r"config_groups\.g\.weights of .* is 7"),
        (COMPRESSED | {"sparsity_config": [1]}, r"sparsity_config of quantization_config is \[1\]"),
        ([1], r"quantization_config is \[1\], where an object is read"),
        ({"quant_method": "fp8", "weight_block_size": [0, 1]}, "weight_block_size"),
        ("int4", "int4"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_said_with_what_is(tmp_path, change, says):
    layouts.folder(tmp_path, {"a": {"weight": torch.ones(2, 2)}}, change)
    with pytest.raises(ModelInvalid, match=says) as refused:
        declared(tmp_path)
    assert "AWQ" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("weight_packed", torch.zeros(ROWS, 3, dtype=torch.int32)),
        ("weight_packed", torch.zeros(ROWS, COLUMNS // 8)),
        ("weight_scale", torch.ones(ROWS - 1, 4)),
        ("weight_scale", torch.ones(ROWS, 5)),
        ("weight_zero_point", torch.zeros(1, 1, dtype=torch.int32)),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, name, tensor):
    tensors = layouts.compressed(integers(4), SCALES, 4) | {name: tensor}
    with pytest.raises(ModelInvalid, match=r"a\.b"):
        stored(tmp_path, tensors, COMPRESSED).read("a.b", (ROWS, COLUMNS))


def test_bytes_without_a_word_of_them_are_refused(tmp_path):
    path = layouts.folder(tmp_path, {"a.b": {"weight": integers(8)}}, None)
    with pytest.raises(ModelInvalid, match="does not say how to read it"):
        Matrices(Checkpoint(path), "int8", lambda taken: None).read("a.b", (ROWS, COLUMNS))


@pytest.mark.parametrize("scales", [torch.ones(2, 3), torch.ones(7), torch.ones(1, 2, 3)])
def test_blocks_that_do_not_fit_are_named(tmp_path, scales):
    weight = torch.ones(ROWS, COLUMNS).to(torch.float8_e4m3fn)
    said = {"quant_method": "fp8", "weight_block_size": [8, 16]}
    path = layouts.folder(tmp_path, {"a.b": {"weight": weight, "weight_scale_inv": scales}}, said)
    with pytest.raises(ModelInvalid, match="weight_scale_inv has shape"):
        Matrices(Checkpoint(path), None, lambda taken: None).floats("a.b", torch.empty(ROWS, COLUMNS), (ROWS, COLUMNS))


def test_a_scale_for_no_whole_number_of_columns_is_no_group(tmp_path):
    tensors = layouts.gptq(integers(4), SCALES, 4, torch.zeros(SCALES.shape)) | {"scales": torch.ones(7, ROWS)}
    matrices = stored(tmp_path, tensors, {"quant_method": "gptq", "bits": 4})
    assert matrices.group("a.b", COLUMNS) is None
    with pytest.raises(ModelInvalid, match=r"a\.b"):
        matrices.read("a.b", (ROWS, COLUMNS))


@pytest.mark.parametrize("index", [torch.zeros(3, dtype=torch.int32), torch.zeros(COLUMNS, 1, dtype=torch.int32)])
def test_an_index_of_another_length_is_refused(tmp_path, index):
    tensors = layouts.gptq(integers(4), SCALES, 4, torch.zeros(SCALES.shape)) | {"g_idx": index}
    with pytest.raises(ModelInvalid, match="g_idx has shape"):
        stored(tmp_path, tensors, {"quant_method": "gptq", "bits": 4}).read("a.b", (ROWS, COLUMNS))


def weights(bits, group):
    return COMPRESSED | {"config_groups": {"g": {"weights": {"num_bits": bits, "group_size": group}}}}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (weights(8, GROUP), r"num_bits of quantization_config is 8, while a\.b has 4 bits.*config\.json that came"),
        (weights(4, 7), r"group_size of quantization_config is 7, while a\.b has 16 columns to a scale"),
        (weights(4, -1), r"group_size of quantization_config is -1"),
        (weights(4, "x"), r"group_size is 'x'"),
        ({"quant_method": "gptq", "bits": 4}, r"quant_method of .* is 'gptq', while a\.b\.weight_packed"),
    ],
)
def test_a_config_of_other_weights_is_refused(tmp_path, said, says):
    with pytest.raises(ModelInvalid, match=says):
        stored(tmp_path, layouts.compressed(integers(4), SCALES, 4), said).read("a.b", (ROWS, COLUMNS))


def test_what_config_and_tensors_agree_on_is_read(tmp_path):
    tensors = layouts.compressed(integers(4), SCALES, 4)
    assert stored(tmp_path / "a", tensors, weights(4, GROUP)).read("a.b", (ROWS, COLUMNS)).group == GROUP
    row = layouts.compressed(integers(4), SCALES[:, :1].contiguous(), 4)
    for size in (-1, COLUMNS, 2 * COLUMNS):
        assert stored(tmp_path / str(size), row, weights(4, size)).read("a.b", (ROWS, COLUMNS)).group == COLUMNS


def test_gptq_of_another_group_is_refused_unless_layers_were_excepted(tmp_path):
    said = {"quant_method": "gptq", "bits": 4, "group_size": 2 * GROUP}
    tensors = layouts.gptq(integers(4), SCALES, 4, torch.zeros(SCALES.shape))
    with pytest.raises(ModelInvalid, match=r"group_size of quantization_config is 32"):
        stored(tmp_path, tensors, said).read("a.b", (ROWS, COLUMNS))
    excepted = said | {"dynamic": {"a": {"group_size": GROUP}}}
    assert stored(tmp_path, tensors, excepted).read("a.b", (ROWS, COLUMNS)).group == GROUP


@pytest.mark.parametrize("wrong", [0.0, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("layout", ["packed", "bytes", "fp8"])
def test_scales_that_make_nonsense_are_refused(tmp_path, wrong, layout):
    scales = SCALES.clone() if layout == "packed" else SCALES[:, :1].float().contiguous()
    scales[5, 0] = wrong
    numbers = integers(8) // 2 * 2 + 1 if layout == "bytes" else integers(4).clamp(min=1)
    said = COMPRESSED if layout != "fp8" else {"quant_method": "fp8"}
    tensors = (
        layouts.compressed(numbers, scales, 4)
        if layout == "packed"
        else {"weight": numbers if layout == "bytes" else numbers.to(torch.float8_e4m3fn), "weight_scale": scales}
    )
    matrices = stored(tmp_path, tensors, said)
    with pytest.raises(ModelInvalid, match=rf"model\.safetensors.*a\.b\.weight_scale holds {wrong:g} .*quantize"):
        if layout == "fp8":
            matrices.floats("a.b", (ROWS, COLUMNS), (0, ROWS))
        else:
            matrices.read("a.b", (ROWS, COLUMNS))


def test_scales_cut_to_integers_are_refused(tmp_path):
    tensors = layouts.compressed(integers(4), SCALES.int(), 4)
    with pytest.raises(ModelInvalid, match=r"a\.b\.weight_scale is I32 where scales are floats"):
        stored(tmp_path, tensors, COMPRESSED).read("a.b", (ROWS, COLUMNS))


def test_a_group_of_zeros_may_have_a_scale_of_zero(tmp_path):
    numbers, scales = integers(4), SCALES.clone()
    numbers[5, :GROUP], scales[5, 0] = 0, 0
    found = stored(tmp_path, layouts.compressed(numbers, scales, 4), COMPRESSED).read("a.b", (ROWS, COLUMNS))
    assert not found.dequantize()[5, :GROUP].any()


def test_gptq_may_have_negative_scales_and_no_infinite_ones(tmp_path):
    numbers, zeros = integers(4), torch.zeros(SCALES.shape)
    check(stored(tmp_path / "a", layouts.gptq(numbers, -SCALES, 4, zeros), {"quant_method": "gptq", "bits": 4}),
          whole(numbers, -SCALES, zeros))  # fmt: skip
    tensors = layouts.gptq(numbers, SCALES / 0, 4, zeros)
    with pytest.raises(ModelInvalid, match=r"a\.b\.scales holds inf"):
        stored(tmp_path / "b", tensors, {"quant_method": "gptq", "bits": 4}).read("a.b", (ROWS, COLUMNS))


@pytest.mark.parametrize(("name", "said"), [("weight_scale", {}), ("weight_scale_inv", {"weight_block_size": None})])
def test_fp8_may_have_one_scale_without_a_shape(tmp_path, name, said):
    weight = torch.randn(ROWS, COLUMNS, generator=MADE).to(torch.float8_e4m3fn)
    tensors = {"weight": weight, name: torch.tensor(0.25)}
    path = layouts.folder(tmp_path, {"a.b": tensors}, {"quant_method": "fp8"} | said)
    into = torch.empty(ROWS, COLUMNS)
    Matrices(Checkpoint(path), None, lambda taken: None).floats("a.b", into, (ROWS, COLUMNS))
    assert torch.equal(into, weight.float() / 4)


def test_fp8_scales_by_groups_are_named(tmp_path):
    tensors = {"weight": torch.ones(ROWS, COLUMNS).to(torch.float8_e4m3fn), "weight_scale": torch.ones(ROWS, 2)}
    path = layouts.folder(tmp_path, {"a.b": tensors}, {"quant_method": "fp8"})
    with pytest.raises(ModelInvalid, match=r"a\.b\.weight_scale has shape"):
        Matrices(Checkpoint(path), None, lambda taken: None).floats("a.b", torch.empty(ROWS, COLUMNS), (ROWS, COLUMNS))


def test_bytes_are_not_rounded_again(tmp_path):
    tensors = {"weight": integers(8), "weight_scale": SCALES[:, :1].contiguous()}
    path = layouts.folder(tmp_path, {"a.b": tensors}, COMPRESSED | {"format": "int-quantized"})
    with pytest.raises(ModelInvalid, match="quantized already"):
        Matrices(Checkpoint(path), "int4", lambda taken: None)


def test_groups_that_do_not_divide_are_not_taken_for_act_order(tmp_path):
    tensors = layouts.gptq(integers(4), SCALES, 4, torch.zeros(SCALES.shape))
    tensors["g_idx"] = (torch.arange(COLUMNS) // (COLUMNS * 2 // 5)).to(torch.int32)
    matrices = stored(tmp_path, tensors, {"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelInvalid, match=r"a\.b\.g_idx makes 3 groups that do not divide"):
        matrices.read("a.b", (ROWS, COLUMNS))


@pytest.mark.parametrize(
    ("location", "read"), [("weight_input", True), ("weight_output", True), ("input", False), ("output", False)]
)
def test_transforms_of_what_is_multiplied_are_refused(tmp_path, location, read):
    apply = [{"targets": ["Linear"], "location": location}]
    said = {"transform_config": {"config_groups": {"u": {"type": "hadamard", "apply": apply}}}}
    layouts.folder(tmp_path, {"a": {"weight": torch.ones(2, 2)}}, COMPRESSED | said)
    if read:
        assert declared(tmp_path) is not None
    else:
        with pytest.raises(ModelInvalid, match=f"a transform of {location} "):
            declared(tmp_path)
