import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.quantization.packing import AWQ_ORDER, pack, unpack
from tests.actors.quantization import layouts


@pytest.mark.parametrize("bits", [4, 8])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), rows=st.integers(1, 5), columns=st.integers(1, 20))
def test_words_are_those_of_the_format(bits, seed, rows, columns):
    middle = 1 << (bits - 1)
    made = torch.Generator().manual_seed(seed)
    values = torch.randint(-middle, middle, (rows, columns), generator=made).to(torch.int8)
    words = pack(values, bits)
    assert words.dtype is torch.int32
    assert torch.equal(
        words, layouts.compressed(values, torch.ones(rows, 1), bits)["weight_packed"][:, : len(words[0])]
    )
    assert layouts.unpacked_rows(words, bits, columns) == values.tolist()
    assert torch.equal(unpack(words, bits)[:, :columns], values)


def test_the_example_of_the_formats_own_documentation():
    # [1, 2] -> [129, 130] -> 00000000 00000000 10000010 10000001 -> 33409, which fills up with unsigned zeros
    assert layouts.word([129, 130, 0, 0]) == 33409
    assert pack(torch.tensor([[1, 2, -128, -128]], dtype=torch.int8), 8).tolist() == [[33409]]


def test_order_of_awq():
    values = torch.arange(-8, 8, dtype=torch.int8).view(2, 8)
    words = layouts.awq(values.T.contiguous(), torch.ones(8, 1), torch.zeros(8, 1, dtype=torch.int8))["qweight"]
    assert torch.equal(unpack(words, 4, AWQ_ORDER), values)
    assert not torch.equal(unpack(words, 4), values)
