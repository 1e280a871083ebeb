"""Gates computed with their product: the bits of a product and a pass over it, for all rows, columns and weights."""

from ctypes import addressof

import pytest
import torch

from actors.models.kernels import interface, panels, quantized
from actors.models.kernels.operations import TYPES, gate
from actors.models.quantized import QuantizedWeight
from tests.actors.kernels.test_identical import threads

ROWS = [*range(1, 34), 100, 513]
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WIDTHS = [16, 48, 80, 37]  # of the gates; the last are no whole panels
INNER = 64


def gated(x, weight, activation, bias=None):
    """What a step makes of `x`."""
    wide = weight.shape[0]
    out = x.new_full((x.shape[0], wide // 2), torch.nan)
    described = weight.describe(None if bias is None else bias.data_ptr())
    interface.loaded().gated_product(
        TYPES[x.dtype], activation, x.data_ptr(), addressof(described), out.data_ptr(), x.shape[0]
    )
    return out


def of_bits(bits, wide):
    scales = torch.rand(wide, INNER // 32) / 50
    return quantized.pack(QuantizedWeight(bits, 32, torch.randint(-7, 8, (wide, INNER), dtype=torch.int8), scales))


@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", WIDTHS)
def test_float_weights(width, dtype, activation):
    weight, bias = panels.pack(torch.randn(2 * width, INNER).to(FLOATS[dtype])), torch.randn(2 * width)
    x = torch.randn(max(ROWS), INNER).to(FLOATS[dtype])
    for offsets in (None, bias):
        both = panels.linear(x, weight, offsets)
        for count in (1, 2, 4):  # 4 share out the rows too where there are many
            with threads(count):
                for rows in ROWS:
                    assert torch.equal(gated(x[:rows], weight, activation, offsets), gate(both[:rows], activation))


@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("width", WIDTHS)
def test_quantized_weights(width, bits, activation):
    weight, bias = of_bits(bits, 2 * width), torch.randn(2 * width)
    for dtype in FLOATS.values():
        x = torch.randn(max(ROWS), INNER).to(dtype)
        both = quantized.linear(x, weight, bias)
        for rows in ROWS:
            assert torch.equal(gated(x[:rows], weight, activation, bias), gate(both[:rows], activation))


def test_rows_too_wide_for_the_cache_come_in_parts():
    weight, x = panels.pack(torch.randn(64, 6000).bfloat16()), torch.randn(200, 6000).bfloat16()
    assert torch.equal(gated(x, weight, 0), gate(panels.linear(x, weight), 0))


def test_what_is_not_a_number_stays_so():
    weight, x = panels.pack(torch.ones(32, INNER).bfloat16()), torch.zeros(9, INNER).bfloat16()
    x[1, 3] = torch.nan
    made = gated(x, weight, 0)
    assert made[1].isnan().all()
    assert not made[[0, 2]].any()
