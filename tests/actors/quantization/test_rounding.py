import pytest
import torch

from actors.models.quantized import QuantizedWeight, join
from actors.quantization.rounding import group_for, nearest, rounded_rows, to_float8
from cluster.errors import ModelInvalid


def outliers(rows=48, columns=128, seed=0):
    made = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=made)
    weight[:, ::17] *= 12
    return weight


def test_eight_bits_are_off_by_half_a_step_at_most():
    weight = outliers()
    found = nearest(weight, 8, 128)
    assert found.scales.shape == (48, 1)
    assert bool(((found.dequantize() - weight).abs() <= found.scales / 2 * 1.0001).all())
    assert int(found.values.abs().max()) == 127


def test_the_search_beats_the_widest_value_as_scale():
    weight = outliers()
    found = nearest(weight, 4, 32)
    wide = weight.view(48, 4, 32)
    scale = wide.abs().amax(-1, keepdim=True) / 7
    plain = ((wide / scale).round() * scale - wide).square().sum()
    assert float((found.dequantize() - weight).square().sum()) < 0.9 * float(plain)
    assert int(found.values.min()) >= -8
    assert int(found.values.max()) <= 7


@pytest.mark.parametrize(("bits", "group"), [(8, 128), (8, 64), (4, 32)])
def test_scales_can_be_stored_in_sixteen_bits(bits, group):
    found = nearest(outliers(), bits, group, torch.bfloat16)
    assert torch.equal(found.scales, found.scales.bfloat16().float())


def test_zeros_stay_zeros():
    found = nearest(torch.zeros(3, 64), 4, 32)
    assert not found.dequantize().any()
    assert not to_float8(torch.zeros(3, 64))[0].float().any()


def test_windows_and_columns_make_what_the_whole_makes():
    weight = outliers(columns=96)
    for wanted in (8, 4):
        bits, group = group_for(wanted, 96)
        whole = nearest(weight, bits, group)
        windows = [(10, weight[10:17]), (17, weight[17:31])]
        found = rounded_rows(windows, (21, 96), bits, group, slice(32, 64))
        assert torch.equal(found.dequantize(), whole.dequantize()[10:31, 32:64])


def test_columns_that_groups_do_not_divide_are_rounded_by_rows():
    assert group_for(4, 96) == (4, 32)
    assert group_for(4, 77) == (8, 77)
    assert group_for(8, 96) == (8, 96)


def test_float8_is_off_by_a_sixteenth():
    weight = outliers()
    values, scales = to_float8(weight)
    assert values.dtype is torch.float8_e4m3fn
    assert bool(((values.float() * scales - weight).abs() <= weight.abs() / 16 + scales * 2**-9).all())


def test_cutting_and_joining():
    weight = nearest(outliers(), 4, 32)
    whole = weight.dequantize()
    assert torch.equal(join([weight.rows(0, 5), weight.rows(5, 48)]).dequantize(), whole)
    assert torch.equal(weight.columns(32, 96).dequantize(), whole[:, 32:96])
    assert torch.equal(weight.take(torch.tensor([[3, 1]])), whole[[3, 1]][None])
    padded = weight.padded(50).dequantize()
    assert torch.equal(padded[:48], whole)
    assert not padded[48:].any()
    rows = nearest(outliers(), 8, 128)
    assert torch.equal(rows.columns(5, 70).dequantize(), rows.dequantize()[:, 5:70])


def test_a_group_is_not_cut():
    with pytest.raises(ModelInvalid, match=r"o_proj.*columns 16 and 48, within a group of 32"):
        nearest(outliers(), 4, 32).columns(16, 48, "o_proj")


def test_unlike_kinds_are_not_joined():
    weight = outliers()
    with pytest.raises(ModelInvalid, match=r"q_proj.*unlike"):
        join([nearest(weight, 4, 32), nearest(weight, 8, 128)], "q_proj")


def test_zeros_are_taken_off_and_survive_joining():
    values = torch.tensor([[1, 2, 3, 4]], dtype=torch.int8)
    off = QuantizedWeight(8, 2, values, torch.tensor([[0.5, 2.0]]), torch.tensor([[1, -1]], dtype=torch.int8))
    assert off.dequantize().tolist() == [[0.0, 0.5, 8.0, 10.0]]
    both = join([off, QuantizedWeight(8, 2, values, torch.ones(1, 2))])
    assert both.dequantize().tolist() == [[0.0, 0.5, 8.0, 10.0], [1, 2, 3, 4]]
    assert off.columns(2, 4).dequantize().tolist() == [[8.0, 10.0]]
