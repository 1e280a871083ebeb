"""Heads, widths and vocabularies over ranks: parts that tile, or a refusal that says what divides."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models import split
from cluster.errors import ModelInvalid


@given(total=st.integers(0, 1000), size=st.integers(1, 65))
def test_parts_tile(total, size):
    for cut in (split.even, split.padded):
        parts = [cut(total, rank, size) for rank in range(size)]
        assert parts[0].start == 0
        assert parts[-1].stop == total
        assert all(left.stop == right.start for left, right in pairwise(parts))
    assert max(split.even(total, rank, size).count for rank in range(size)) <= -(-total // size)


@given(groups=st.integers(1, 16), keys=st.integers(1, 16), size=st.integers(1, 16))
def test_every_query_head_finds_its_key_head(groups, keys, size):
    queries = groups * keys
    try:
        shares = [split.heads(queries, keys, rank, size) for rank in range(size)]
    except ModelInvalid:
        return
    assert sum(own.count for own, _ in shares) == queries
    for own, held in shares:
        each = own.count // held.count
        for place in range(own.count):
            assert held.start + place // each == (own.start + place) // groups


@pytest.mark.parametrize(
    ("queries", "keys", "size", "good"), [(6, 2, 4, "1, 2, 6"), (32, 8, 3, "1, 2, 4, 8, 16, 32"), (7, 1, 2, "1, 7")]
)
def test_says_what_divides(queries, keys, size, good):
    with pytest.raises(ModelInvalid, match=f"tensor_parallel_size {size}.*one of {good} divides"):
        split.heads(queries, keys, 0, size)
