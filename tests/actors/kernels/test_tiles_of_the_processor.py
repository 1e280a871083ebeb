"""What only machines with AMX do: bytes to the same bit as without, and small groups of 4 bits merged for many rows."""

from ctypes import addressof

import pytest
import torch

from actors.models.kernels import interface
from actors.models.kernels.operations import TYPES, gate
from actors.models.kernels.quantized import linear, pack
from tests.actors.kernels.conftest import TILES
from tests.actors.kernels.test_quantized import error, made

SHAPES = [(columns, inner, group) for columns, inner in ((85, 768), (32, 1088), (40, 608), (16, 96), (33, 2432))
          for group in (32, 64, 128, 0) if inner % (group or inner) == 0]  # fmt: skip
pytestmark = pytest.mark.skipif(not TILES, reason="this processor has no AMX")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("columns", "inner", "group"), SHAPES)
def test_bytes_come_out_the_same_with_and_without_tiles(bits, centred, columns, inner, group):
    weight, library = pack(made(columns, inner, bits, group, centred)), interface.loaded()
    for rows in (17, 32, 33, 64, 300):
        x = torch.randn(rows, inner).bfloat16()
        tiled = linear(x, weight)
        library.use_amx(False)
        try:
            assert torch.equal(linear(x, weight), tiled)
        finally:
            library.use_amx(True)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rows", [17, 32, 33, 64, 300])
def test_merged_groups_are_off_by_half_a_byte_of_the_columns_largest(group, centred, rows):
    weight = made(85, 768, 4, group, centred)
    # a row of x that is one place alone is exact as bytes: the product is the weight as it was rounded
    x = torch.eye(768)[torch.randint(0, 768, (rows,))].bfloat16()
    held = linear(x, pack(weight), None, torch.float32, exact=False)
    wanted = x.float() @ weight.dequantize().T
    largest = weight.scales.abs().amax(1) * (8 if centred else 15)
    assert torch.all((held - wanted).abs() <= largest * (0.5 / 127 + 2**-11))
    assert not torch.equal(held, wanted)


@pytest.mark.parametrize("inner", [96, 768, 1440])
@pytest.mark.parametrize("centred", [True, False])
def test_merged_groups_are_close_and_taken_by_many_rows_alone(inner, centred):
    weight, bias = made(85, inner, 4, 32, centred), torch.randn(85)
    packed, exact_weight = pack(weight), weight.dequantize().double().T
    for rows in (1, 16):
        x = torch.randn(rows, inner).bfloat16()
        assert torch.equal(linear(x, packed, bias, exact=False), linear(x, packed, bias))
    for rows in (17, 100, 513):
        x = torch.randn(rows, inner).bfloat16()
        assert error(linear(x, packed, bias, torch.float32, exact=False), x.double() @ exact_weight + bias) < (
            0.013 if centred else 0.016
        )


def test_a_factor_may_be_negative_and_a_column_nothing():
    weight = made(16, 64, 4, 32)
    weight.scales[3] = torch.tensor([-1.0, 0.5])
    weight.scales[4] = 0
    made_of, wanted = linear(torch.eye(64), pack(weight), exact=False), weight.dequantize().T
    assert float((made_of - wanted).abs().max()) <= 8 * (0.5 / 127 + 2**-11)


@pytest.mark.parametrize("activation", [0, 1])
def test_gates_of_merged_groups_are_those_of_the_product(activation):
    weight, x = pack(made(96, 256, 4, 32)), torch.randn(100, 256).bfloat16()
    out = x.new_empty((100, 48))
    described = weight.describe(exact=False)
    interface.loaded().gated_product(
        TYPES[x.dtype], activation, x.data_ptr(), addressof(described), out.data_ptr(), len(x)
    )
    assert torch.equal(out, gate(linear(x, weight, exact=False), activation))
