"""Products with weights of 8 and 4 bits, every path of rows, groups and zeros, against the dequantized weight.

x becomes bytes with a scale for each part of 32 to 128 places: half a step of 1/127 of a part's largest value is lost
in each place, and nothing else but roundings of float32. TOLERANCE bounds the error relative to the exact product,
in the Frobenius norm; normal values in parts of 128 come to 0.0065, of 1,280 to 0.0092.
"""

import pytest
import torch
from torch.nn import functional

from actors.models.kernels import interface
from actors.models.kernels.quantized import PackedWeight, linear, pack, packed
from actors.models.layers import QuantizedLinear
from actors.models.quantized import QuantizedWeight

pytestmark = pytest.mark.usefixtures("either")

TOLERANCE = 0.011
ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 27, 32, 33, 512]
SHAPES = [(50, 96), (256, 256), (17, 384), (30, 160), (309, 64), (1, 32), (40, 608), (20, 1088), (33, 1440)]  # [N, K]
GROUPS = [32, 64, 128, 0]  # 0: a whole row


def made(rows, columns, bits, group, centred=True):
    top = 2 ** (bits - 1)
    values = torch.randint(-top, top, (rows, columns), dtype=torch.int8)
    groups = columns // (group or columns)
    zeros = None if centred else torch.randint(-top // 2, top // 2, (rows, groups), dtype=torch.int8)
    return QuantizedWeight(bits, group or columns, values, torch.rand(rows, groups) + 0.01, zeros)


def error(result, exact):
    return float((result.double() - exact).norm() / exact.norm())


def as_bytes(x, weight):
    """`x` as the kernels round it, in float32: in parts of 128 places for small groups, else of at most 1,280."""
    inner = x.shape[1]
    unit = 32 if inner % 64 else 64
    part = 128 if weight.group <= 128 else -(-inner // unit // -(-inner // 1280)) * unit
    rounded = []
    for places in x.split(part, 1):
        top = places.abs().amax(-1, keepdim=True)
        rounded.append((places * (127 / top)).round() * (top / 127))
    return torch.cat(rounded, 1)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("centred", [True, False])
def test_every_tile(bits, group, centred):
    for rows, columns in SHAPES:
        if columns % (group or columns):
            continue
        weight = made(rows, columns, bits, group, centred)
        exact_weight, laid_out = weight.dequantize().double(), pack(weight)
        step = 2**-11 if weight.group < columns else 2**-20  # scales in half precision, or none
        for count in ROWS:
            x = as_bytes(torch.randn(count, columns), weight).double()
            size = x.abs() @ exact_weight.abs().T
            assert torch.all((linear(x.float(), laid_out).double() - x @ exact_weight.T).abs() <= step * size)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 32, 33, 512])
@pytest.mark.parametrize(("bits", "group"), [(8, 0), (8, 128), (4, 32), (4, 128)])
def test_is_close_to_the_dequantized_product(bits, group, rows):
    x, weight = torch.randn(rows, 768), made(300, 768, bits, group)
    assert error(linear(x, pack(weight)), x.double() @ weight.dequantize().double().T) < TOLERANCE


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", [32, 128, 0])
@pytest.mark.parametrize("rows", [1, 8, 33])
def test_whole_numbers_come_out_exactly(bits, group, rows):
    """x and scales that bytes hold without loss: whatever differs is a place read twice, left out or misplaced."""
    weight = made(53, 256, bits, group)
    weight = QuantizedWeight(bits, weight.group, weight.values, torch.ones_like(weight.scales))
    x = torch.randint(-127, 128, (rows, 256)).float()
    x[:, ::32] = 127
    assert torch.equal(linear(x, pack(weight)), x @ weight.dequantize().T)


@pytest.mark.parametrize("rows", [1, 8, 32])
def test_bfloat16_bias_and_float_output(rows):
    weight, bias = made(53, 128, 8, 0), torch.randn(53) * 50
    x = torch.randn(rows, 128).bfloat16()
    exact = x.double() @ weight.dequantize().double().T + bias.double()
    wide = linear(x, pack(weight), bias, torch.float32)
    assert wide.dtype is torch.float32
    assert error(wide, exact) < TOLERANCE
    narrow = linear(x, pack(weight), bias)
    assert narrow.dtype is torch.bfloat16
    torch.testing.assert_close(narrow, wide.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, 3, 8, 32, 70, 600])
def test_threads_share_the_columns(rows):
    x, weight = torch.randn(rows, 64), pack(made(217, 64, 4, 32))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = linear(x, weight)
        torch.set_num_threads(3)
        assert torch.equal(linear(x, weight), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("centred", [True, False])
def test_a_row_does_not_depend_on_its_neighbours(bits, group, centred):
    """To the last bit, for each number of rows that takes another path."""
    x, weight, bias = torch.randn(600, 256), pack(made(85, 256, bits, group, centred)), torch.randn(85)
    for dtype, offsets, out in ((torch.float32, bias, None), (torch.bfloat16, None, torch.float32)):
        rows = x.to(dtype)
        alone = torch.cat([linear(row[None], weight, offsets, out) for row in rows])
        for count in (*range(2, 34), 64, 100, 513, 600):
            assert torch.equal(linear(rows[:count], weight, offsets, out), alone[:count])
        assert torch.equal(linear(rows[-27:], weight, offsets, out), alone[-27:])


def test_what_is_not_finite_stays_so_and_in_its_row():
    x = torch.randn(3, 256)
    x[1, 3], x[2, 200] = torch.nan, torch.inf
    y = linear(x, pack(made(20, 256, 8, 0)))
    assert y[0].isfinite().all()
    assert not y[1:].isfinite().any()


def test_zeros_and_small_numbers():
    weight = made(20, 64, 8, 0)
    assert torch.equal(linear(torch.zeros(2, 64), pack(weight)), torch.zeros(2, 20))
    x = torch.randn(4, 64)
    assert error(linear(x * 1e-30, pack(weight)).double() * 1e30, x.double() @ weight.dequantize().double().T) < 0.01


def test_scales_of_any_size_are_held():
    weight = made(20, 256, 4, 32)
    for factor in (1e-12, 1e12):
        scaled = QuantizedWeight(4, 32, weight.values, weight.scales * factor)
        x = torch.randn(4, 256)
        assert error(linear(x, pack(scaled)), x.double() @ scaled.dequantize().double().T) < TOLERANCE


def test_takes_as_much_memory_as_its_bits():
    assert pack(made(1600, 1024, 8, 0)).memory.numel() < 1.01 * 1600 * 1024
    assert pack(made(1600, 1024, 4, 128)).memory.numel() < 0.52 * 1600 * 1024
    assert pack(made(1600, 1024, 4, 32)).memory.numel() < 0.57 * 1600 * 1024


@pytest.mark.parametrize("weight", [made(4, 48, 8, 0), made(4, 96, 8, 48), made(4, 64, 8, 16)])
def test_what_the_kernels_do_not_take_is_refused_and_computed_plainly(weight):
    with pytest.raises(ValueError, match="columns"):
        pack(weight)
    assert packed(weight) is weight
    x = torch.randn(3, weight.shape[1])
    torch.testing.assert_close(QuantizedLinear(weight)(x), functional.linear(x, weight.dequantize()))


def test_refuses_what_it_would_misread():
    weight = pack(made(4, 32, 8, 0))
    with pytest.raises(ValueError, match="is not"):
        linear(torch.randn(1, 64), weight)
    with pytest.raises(ValueError, match="is not"):
        linear(torch.randn(32, 2).T, weight)
    with pytest.raises(ValueError, match="float16"):
        linear(torch.randn(1, 32).half(), weight)
    with pytest.raises(ValueError, match="bias"):
        linear(torch.randn(1, 32), weight, torch.randn(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_layer_is_the_same_with_and_without_kernels(dtype, monkeypatch):
    weight, bias, x = made(40, 128, 8, 0), torch.randn(40), torch.randn(5, 128).to(dtype)
    fast = QuantizedLinear(weight, bias)
    assert isinstance(fast.weight, PackedWeight)
    monkeypatch.setattr(interface, "loaded", lambda: None)
    plain = QuantizedLinear(weight, bias)
    assert plain.weight is weight
    slow = plain(x)
    monkeypatch.undo()
    assert fast(x).dtype is slow.dtype is dtype
    exact = x.double() @ weight.dequantize().double().T + bias
    assert error(slow, exact) < 0.004
    assert error(fast(x), exact) < TOLERANCE


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("centred", [True, False])
def test_rows_are_looked_up_in_the_packed_weight(bits, group, centred):
    weight = made(37, 256, bits, group, centred)
    index = torch.randint(0, 37, (3, 5))
    # a group's scale is half precision of the row's largest; a row has at most `top` steps of it
    lost = 0.0 if weight.group == 256 and centred else 2**-11 * 2 ** (bits - 1) * 1.5
    torch.testing.assert_close(pack(weight).take(index), weight.take(index), rtol=1e-6, atol=lost)
