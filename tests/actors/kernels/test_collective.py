"""Sums over ranks: a row comes out the same however many rows are summed with it, in one part or in many."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from actors.models.kernels.collective import Collective

WIDTH = 768


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2, 3])
def test_a_row_does_not_depend_on_its_neighbours(size, dtype, tmp_path):
    shares = [torch.randn(1500, WIDTH).to(dtype) for _ in range(size)]  # more than crosses at a time
    Collective.make(tmp_path / "sum", size)
    ends = [Collective.open(tmp_path / "sum", rank, size) for rank in range(size)]
    exact = shares[0].float()
    for share in shares[1:]:  # in the order of the ranks, rounded once
        exact = exact + share.float()
    with ThreadPoolExecutor(size) as pool:
        for rows in (1, 2, 8, 33, 341, 342, 683, 1500):
            for made in pool.map(lambda end, share, rows=rows: end.all_reduce(share[:rows].clone()), ends, shares):
                assert torch.equal(made, exact[:rows].to(dtype))
