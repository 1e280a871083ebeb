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
    """int8 [N, words * per word] of int32 [N, words]; `order` names the column that each place of a word holds."""
    per = 32 // bits
    numbers = (words.unsqueeze(-1) >> (torch.arange(per, dtype=torch.int32) * bits)) & ((1 << bits) - 1)
    if order is not None:
        numbers = numbers[..., [order.index(column) for column in range(per)]]
    return (numbers - (1 << (bits - 1))).to(torch.int8).view(len(words), -1)


def _signed_words(words: torch.Tensor) -> torch.Tensor:
    """int64 in [0, 2^32) as the int32 of the same bits."""
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()
