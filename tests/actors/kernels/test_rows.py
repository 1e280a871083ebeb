"""What is done row by row, against the plain versions in float32."""

import pytest
import torch
from torch.nn import functional

from actors.models.kernels.operations import gate, rms_norm
from actors.models.layers import RMSNorm

DTYPES = [torch.float32, torch.bfloat16]
SIZES = [(1, 64), (8, 30), (32, 768), (3, 17)]


def close(made, exact):
    step = 2**-7 if made.dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(made.float(), exact, rtol=step, atol=step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_norm(size, dtype):
    x, weight = (3 * torch.randn(size)).to(dtype), torch.rand(size[1])
    close(rms_norm(x, weight, 1e-6), RMSNorm(weight, 1e-6)(x.float()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_gate(size, dtype):
    both = (4 * torch.randn(size[0], 2 * size[1])).to(dtype)
    left, right = both.float().chunk(2, -1)
    close(gate(both, 0), functional.silu(left) * right)
    close(gate(both, 1), functional.gelu(left, approximate="tanh") * right)


def test_gate_survives_large_numbers():
    both = torch.tensor([[1e30, -1e30, 200.0, -200.0, 1.0, 1.0, 1.0, 1.0]])
    assert torch.equal(gate(both, 0), torch.tensor([[1e30, 0.0, 200.0, 0.0]])) or gate(both, 0).isfinite().all()
    assert gate(both / 1e20, 1).isfinite().all()
