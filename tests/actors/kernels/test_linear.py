"""Every number of rows takes another path through the tiles; each is held to the product in float64."""

import pytest
import torch

from actors.models.kernels.operations import linear

ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 16, 27, 28, 31, 32, 33, 41, 42, 48, 49, 63, 64, 65, 80, 97, 130]
SHAPES = [(96, 64), (50, 96), (129, 130), (7, 34), (1, 32), (200, 770)]  # [N, K]: whole and broken tiles


def close(made, x, weight, bias=None):
    """Within the rounding of the stored type and of sums in float32, relative to the size of the terms."""
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    size = (x.double().abs() @ weight.double().abs().T).max()
    step = 2**-8 if made.dtype is torch.bfloat16 else 2**-22
    assert torch.all((made.double() - exact).abs() <= step * exact.abs() + 2**-20 * size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", ROWS)
def test_every_tile(rows, dtype):
    for columns, inner in SHAPES:
        x, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        close(linear(x, weight), x, weight)


@pytest.mark.parametrize("rows", [1, 8, 32])
def test_bias_and_float_output(rows):
    x, weight, bias = torch.randn(rows, 66).bfloat16(), torch.randn(53, 66).bfloat16(), torch.randn(53)
    close(linear(x, weight, bias), x, weight, bias)
    wide = linear(x, weight, bias, torch.float32)
    assert wide.dtype is torch.float32
    close(wide, x, weight, bias)


@pytest.mark.parametrize("rows", [1, 8, 32, 70])
def test_threads_share_the_columns(rows):
    x, weight = torch.randn(rows, 64), torch.randn(217, 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = linear(x, weight)
        torch.set_num_threads(3)
        assert torch.equal(linear(x, weight), alone)
    finally:
        torch.set_num_threads(before)


def test_what_is_not_a_number_stays_so():
    x = torch.zeros(1, 32, dtype=torch.bfloat16)
    x[0, 3] = torch.nan
    assert linear(x, torch.ones(4, 32, dtype=torch.bfloat16)).isnan().all()


def test_a_row_does_not_depend_on_its_neighbours():
    x, weight = torch.randn(64, 96).bfloat16(), torch.randn(80, 96).bfloat16()
    whole = linear(x, weight, out_dtype=torch.float32)
    for rows in (1, 8, 32):
        part = linear(x[:rows].contiguous(), weight, out_dtype=torch.float32)
        torch.testing.assert_close(part, whole[:rows], rtol=1e-5, atol=1e-4)


def test_refuses_what_it_would_misread():
    weight = torch.randn(4, 32)
    with pytest.raises(ValueError, match="differ in type"):
        linear(torch.randn(1, 32).bfloat16(), weight)
    with pytest.raises(ValueError, match="width"):
        linear(torch.randn(1, 30), weight)
    with pytest.raises(ValueError, match="one piece"):
        linear(torch.randn(32, 2).T, weight)
    with pytest.raises(ValueError, match="odd"):
        linear(torch.randn(1, 5).bfloat16(), torch.randn(2, 5).bfloat16())
    with pytest.raises(ValueError, match="not a type"):
        linear(torch.randn(1, 32).double(), weight.double())
