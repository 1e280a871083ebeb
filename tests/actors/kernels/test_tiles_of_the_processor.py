"""What only machines with AMX do: bytes to the same bit as without, and 4 bits spread into bf16 for many rows."""

from ctypes import addressof

import pytest
import torch

from actors.models.kernels import interface
from actors.models.kernels.operations import TYPES, gate
from actors.models.kernels.quantized import linear, pack
from tests.actors.kernels.conftest import TILES
from tests.actors.kernels.test_quantized import error, made

SHAPES = [(columns, inner, group) for columns, inner in ((85, 768), (32, 1088), (40, 608), (16, 96))
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


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("centred", [True, False])
def test_spread_weights_are_closer_than_bytes_and_taken_for_many_rows_alone(group, centred):
    weight, bias = made(85, 256, 4, group, centred), torch.randn(85)
    packed, exact_weight = pack(weight), weight.dequantize().double().T
    for rows in (1, 63):
        x = torch.randn(rows, 256).bfloat16()
        assert torch.equal(linear(x, packed, bias, exact=False), linear(x, packed, bias))
    for rows in (64, 100, 513):
        x = torch.randn(rows, 256).bfloat16()
        exact = x.double() @ exact_weight + bias.double()
        spread = error(linear(x, packed, bias, torch.float32, exact=False), exact)
        assert spread < 0.003 < error(linear(x, packed, bias, torch.float32), exact)


@pytest.mark.parametrize("activation", [0, 1])
def test_gates_of_spread_weights_are_those_of_the_product(activation):
    weight, x = pack(made(96, 256, 4, 32)), torch.randn(100, 256).bfloat16()
    out = x.new_empty((100, 48))
    described = weight.describe(exact=False)
    interface.loaded().gated_product(
        TYPES[x.dtype], activation, x.data_ptr(), addressof(described), out.data_ptr(), len(x)
    )
    assert torch.equal(out, gate(linear(x, weight, exact=False), activation))
