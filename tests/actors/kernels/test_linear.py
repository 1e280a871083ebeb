"""Products with panels: every number of rows against the product in float64, and each row alone to the last bit."""

import pytest
import torch

from actors.models.kernels.panels import linear, pack

pytestmark = pytest.mark.usefixtures("either")

ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 27, 28, 32, 33, 41, 64, 65, 100, 130]
SHAPES = [(96, 64), (50, 96), (129, 130), (7, 34), (1, 32), (200, 770), (17, 2), (321, 66)]  # [N, K]
MANY = [1, 2, 3, 4, 5, 8, 16, 27, 28, 32, 33, 64, 100, 513]
TYPES = [(torch.float32, None), (torch.bfloat16, None), (torch.bfloat16, torch.float32)]


def close(made, x, weight, bias=None):
    """Within the rounding of the stored type and of sums in float32, relative to the size of the terms."""
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    size = (x.double().abs() @ weight.double().abs().T).max()
    step = 2**-8 if made.dtype is torch.bfloat16 else 2**-22
    assert torch.all((made.double() - exact).abs() <= step * exact.abs() + 2**-20 * size)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", ROWS)
def test_every_tile(rows, dtype):
    for columns, inner in SHAPES:
        x, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        close(linear(x, pack(weight.clone())), x, weight)


def test_float32_of_odd_width():
    for rows in (1, 5, 33):
        x, weight = torch.randn(rows, 37), torch.randn(45, 37)
        close(linear(x, pack(weight.clone())), x, weight)


@pytest.mark.parametrize("rows", [1, 8, 32])
def test_bias_and_float_output(rows):
    x, weight, bias = torch.randn(rows, 66).bfloat16(), torch.randn(53, 66).bfloat16(), torch.randn(53)
    panels = pack(weight.clone())
    close(linear(x, panels, bias), x, weight, bias)
    wide = linear(x, panels, bias, torch.float32)
    assert wide.dtype is torch.float32
    close(wide, x, weight, bias)


@pytest.mark.parametrize("rows", [1, 3, 20, 64])
def test_rows_of_x_may_lie_apart(rows):
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.randn(rows, 101).to(dtype), torch.randn(70, 64).to(dtype)
        part = x[:, 7:71]  # 101 elements apart, and from an odd place on
        close(linear(part, pack(weight.clone())), part, weight)


@pytest.mark.parametrize(("dtype", "out"), TYPES)
def test_a_row_does_not_depend_on_its_neighbours(dtype, out, threads):
    bias = torch.randn(117)
    for columns, inner in ((117, 96), (64, 200)):
        x, panels = torch.randn(513, inner).to(dtype), pack(torch.randn(columns, inner).to(dtype))
        offsets = bias if columns == len(bias) else None
        threads(1)
        alone = torch.cat([linear(x[i : i + 1], panels, offsets, out) for i in range(len(x))])
        for count in (1, 2):
            threads(count)
            for rows in MANY:
                assert torch.equal(linear(x[:rows], panels, offsets, out), alone[:rows])
                assert torch.equal(linear(x[-rows:], panels, offsets, out), alone[-rows:])


@pytest.mark.parametrize("rows", [1, 8, 32, 70, 513])
def test_neither_threads_nor_a_cut_of_the_columns_change_a_bit(rows, threads):
    x, weight = torch.randn(rows, 64).bfloat16(), torch.randn(217, 64).bfloat16()
    threads(1)
    alone = linear(x, pack(weight.clone()))
    cut = [linear(x, pack(part.clone())) for part in (weight[:100], weight[100:])]
    assert torch.equal(torch.cat(cut, 1), alone)
    for count in (2, 3, 4, 8):  # 4 and 8 share out the rows too where there are many
        threads(count)
        assert torch.equal(linear(x, pack(weight.clone())), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_takes_no_memory_and_leaves_nothing_to_misread(dtype):
    for shape in [*SHAPES, (40, 4096)]:
        weight = torch.randn(shape).to(dtype)
        copy, address = weight.clone(), weight.data_ptr()
        panels = pack(weight)
        assert panels.memory.data_ptr() == address
        assert weight.numel() == 0
        assert torch.equal(panels.unpacked(), copy)
        index = torch.randint(0, shape[0], (3, 5))
        assert torch.equal(panels.take(index), copy[index])


def test_what_is_not_a_number_stays_so():
    x = torch.zeros(3, 32, dtype=torch.bfloat16)
    x[1, 3] = torch.nan
    made = linear(x, pack(torch.ones(4, 32, dtype=torch.bfloat16)))
    assert made[1].isnan().all()
    assert not made[[0, 2]].any()


def test_refuses_what_it_would_misread():
    panels = pack(torch.randn(4, 32))
    with pytest.raises(ValueError, match="is not"):
        linear(torch.randn(1, 32).bfloat16(), panels)
    with pytest.raises(ValueError, match="is not"):
        linear(torch.randn(1, 30), panels)
    with pytest.raises(ValueError, match="one piece"):
        linear(torch.randn(32, 2).T, panels)
    with pytest.raises(ValueError, match="bias"):
        linear(torch.randn(1, 32), panels, torch.randn(5))
    with pytest.raises(ValueError, match="product"):
        linear(torch.randn(1, 32), panels, out_dtype=torch.float16)
    with pytest.raises(ValueError, match="odd"):
        pack(torch.randn(2, 5).bfloat16())
    with pytest.raises(ValueError, match="float matrices"):
        pack(torch.randn(2, 4).double())
    with pytest.raises(ValueError, match="one piece"):
        pack(torch.randn(4, 4).T)
