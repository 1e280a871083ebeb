"""Small integers in words of 32 bits, in the orders that compressed-tensors, GPTQ and AWQ use.

Knows bits. Knows nothing of files, scales or models. All of them store unsigned numbers; here they are signed, the
middle of the range (8 or 128) taken off.
"""

import torch

# AutoAWQ's order: the nibble at bit 4 * i of a word holds column AWQ_ORDER[i] of its eight
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack(values: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [N, ceil(K / per word)] of int8 [N, K]: the first column lies in the lowest bits."""
    per = 32 // bits
    padded = torch.nn.functional.pad(values.int() + (1 << (bits - 1)), (0, -values.shape[1] % per))
    words = padded.view(len(values), -1, per).long() << (torch.arange(per) * bits)
    return _signed_words(words.sum(-1))


def unpack(words: torch.Tensor, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """int8 [N, words * per word] of int32 [N, words]; `order` names the column that each place of a word holds.

    By bytes and not by words: what is made on the way takes no more than the result. Words are little-endian in memory.
    """
    rows, columns = words.shape
    data = words.reshape(-1).view(torch.uint8).view(rows, 4 * columns)
    if bits == 8:
        values = (data ^ 0x80).view(torch.int8)
    else:
        values = torch.empty((*data.shape, 2), dtype=torch.int8)
        values[..., 0] = data & 15
        values[..., 1] = data >> 4
        values = values.sub_(8).view(rows, 8 * columns)
    if order is None:
        return values
    places = [order.index(column) for column in range(len(order))]
    return values.view(rows, columns, len(order))[..., places].view(rows, -1)


def _signed_words(words: torch.Tensor) -> torch.Tensor:
    """int64 in [0, 2^32) as the int32 of the same bits."""
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()
