import functools
import shutil

import pytest
import torch

from actors.models.kernels import interface
from actors.models.kernels.building import AVX2, AVX512, best_lanes, library, processor_features
from actors.models.kernels.interface import Library, available, loaded

TILES = {"amx_tile", "amx_bf16", "amx_int8"} <= processor_features()


@pytest.fixture(autouse=True)
def _kernels():
    if best_lanes() is None or not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("this machine has no AVX2 or no compiler: the plain versions run instead")
    assert available(), "the kernels do not compile here"
    torch.manual_seed(0)


@pytest.fixture(params=[*["tiles"] * TILES, "vectors", *["narrow"] * (best_lanes() is AVX512)])
def either(request, _kernels, monkeypatch):
    """With the tiles of the processor, if it has them; without; and as on a processor that has AVX2 only."""
    if request.param == "narrow":
        monkeypatch.setattr(interface, "loaded", narrow)
        return
    own = loaded()
    own.use_amx(request.param == "tiles")
    request.addfinalizer(lambda: own.use_amx(True))


@functools.cache
def narrow():
    return Library(str(library(lanes=AVX2)))
