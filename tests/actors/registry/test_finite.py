"""Values that are no finite numbers, as torch counts them."""

import pytest
import torch

from actors.models.headers import TYPES
from actors.registry import finite
from actors.registry.merging import bytes_of

ODD = [float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 448.0]


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3"])
def test_what_is_counted_is_what_torch_counts(dtype):
    values = torch.tensor(ODD).to(TYPES[dtype])
    assert finite.wrong(bytes_of(values), dtype) == int((~values.double().isfinite()).sum()) > 0
    assert finite.wrong(bytes_of(values[3:]), dtype) == finite.wrong(b"", dtype) == 0


@pytest.mark.parametrize("dtype", ["I32", "U8", "BOOL", ""])
def test_whole_numbers_are_finite(dtype):
    assert finite.wrong(b"\xff" * 8, dtype) == 0
