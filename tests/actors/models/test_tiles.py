"""Tiles hold what rows hold, in another order, and a block of them takes all of its tokens along."""

from itertools import product

import pytest
import torch

from actors.models.cache import CachedTensor
from actors.models.tiles import KEYS, VALUES

SHAPE = (96, 3, 10)
KINDS = list(product([KEYS, VALUES], [torch.float32, torch.bfloat16], ["auto", "int8"]))


def filled(tiles, dtype, kept):
    torch.manual_seed(0)
    rows, tiled = (CachedTensor(SHAPE, dtype, "cpu", kept, order) for order in (None, tiles))
    for slots in (torch.randperm(96)[:70], torch.tensor([3, 95, 17])):
        new = torch.randn(len(slots), *SHAPE[1:]).to(dtype)
        rows.write(slots, new)
        tiled.write(slots, new)
    return rows, tiled


@pytest.mark.parametrize(("tiles", "dtype", "kept"), KINDS)
def test_reads_what_was_written_and_nothing_else_has_changed(tiles, dtype, kept):
    rows, tiled = filled(tiles, dtype, kept)
    for slots in (torch.arange(96), torch.tensor([40, 3, 3, 95])):
        assert torch.equal(rows.read(slots), tiled.read(slots))
    assert [part.shape for part in rows.parts] == [part.shape for part in tiled.parts]
    assert not torch.equal(rows.numbers, tiled.numbers)


@pytest.mark.parametrize(("tiles", "dtype", "kept"), KINDS)
def test_a_block_that_is_copied_as_it_lies_holds_the_same_tokens(tiles, dtype, kept):
    _, tiled = filled(tiles, dtype, kept)
    before = tiled.read(torch.arange(32, 64))
    for part in tiled.parts:
        part[64:] = part[32:64].clone()
    assert torch.equal(tiled.read(torch.arange(64, 96)), before)


def test_a_lane_multiplies_what_lies_in_a_row_of_it():
    keys, values = (CachedTensor((16, 1, 4), torch.bfloat16, "cpu", tiles=order) for order in (KEYS, VALUES))
    new = torch.arange(64.0).view(16, 1, 4).bfloat16()  # 4 p + d
    for cached in (keys, values):
        cached.write(torch.arange(16), new)
    assert keys.numbers.flatten()[:4].tolist() == [0, 1, 4, 5]  # two dimensions of a position after another
    assert keys.numbers.flatten()[32:34].tolist() == [2, 3]
    assert values.numbers.flatten()[:4].tolist() == [0, 4, 1, 5]  # two positions of a dimension after another
