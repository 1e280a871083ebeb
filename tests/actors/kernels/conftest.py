import shutil

import pytest
import torch

from actors.models.kernels.building import NEEDED, processor_features
from actors.models.kernels.interface import available, loaded

TILES = {"amx_tile", "amx_bf16", "amx_int8"} <= processor_features()


@pytest.fixture(autouse=True)
def _kernels():
    if not processor_features() >= NEEDED or not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("this machine has no AVX-512 or no compiler: the plain versions run instead")
    assert available(), "the kernels do not compile here"
    torch.manual_seed(0)


@pytest.fixture(params=["tiles", "vectors"] if TILES else ["vectors"])
def either(request, _kernels):
    """With the tiles of the processor, if it has them, and without."""
    loaded().use_amx(request.param == "tiles")
    yield
    loaded().use_amx(True)
