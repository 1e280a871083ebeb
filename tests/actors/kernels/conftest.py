import pytest
import torch

from actors.models.kernels.interface import available


@pytest.fixture(autouse=True)
def _kernels():
    if not available():
        pytest.skip("this machine has no AVX-512 or no compiler: the plain versions run instead")
    torch.manual_seed(0)
