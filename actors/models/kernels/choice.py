"""Rows of logits, compiled: a token of each behind top_k, top_p and min_p, and how likely tokens are."""

import numpy as np
import numpy.typing as npt

from actors.models.kernels import interface

# `Wish` of interface.py, for many rows at once; `fits` is the address of a row of bits, or 0
WISH = np.dtype(
    [
        ("fits", np.uint64),
        *((name, np.float64) for name in ("uniform", "top_p", "min_p")),
        *((name, np.int64) for name in ("top_k", "row")),
        ("temperature", np.float32),
    ],
    align=True,
)

Logits = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def choose(lines: Logits, wishes: npt.NDArray[np.void]) -> Rows | None:
    """For each of `wishes` [n] of type WISH a token by its row of `lines` [rows, vocab]; -1 where no number is allowed.

    None on a machine without kernels. A uniform below 0 takes the likeliest, of equal ones the first. A row's token is
    the same whatever rows are beside it. Whoever calls keeps the bits alive. Raises ValueError.
    """
    library = interface.loaded()
    if library is None:
        return None
    if wishes.dtype != WISH or not wishes.flags.c_contiguous:
        raise ValueError("wishes are of type WISH, in one piece of memory")
    stride, vocab = _checked(lines, wishes["row"])
    tokens = np.empty(len(wishes), np.int64)
    library.choose(lines.ctypes.data, stride, vocab, wishes.ctypes.data, len(wishes), tokens.ctypes.data)
    return tokens


def weigh(lines: Logits, at: Rows, most: int) -> tuple[Logits, npt.NDArray[np.float64], Rows] | None:
    """Of the rows `at` [n] of `lines` [rows, vocab] what tells how likely tokens are.

    The largest logits [n], the sums of e^(logit - largest) [n], and the tokens of the `most` largest [n, most], the
    largest first, equal ones in order, -1 where there are fewer. None on a machine without kernels. Raises ValueError.
    """
    library = interface.loaded()
    if library is None:
        return None
    at = np.ascontiguousarray(at, np.int64)
    stride, vocab = _checked(lines, at)
    tops, sums, places = np.empty(len(at), np.float32), np.empty(len(at)), np.empty((len(at), most), np.int64)
    library.weigh_rows(
        lines.ctypes.data, stride, vocab, at.ctypes.data, len(at), most, tops.ctypes.data, sums.ctypes.data,
        places.ctypes.data,
    )  # fmt: skip
    return tops, sums, places


def _checked(lines: Logits, at: Rows) -> tuple[int, int]:
    """How far rows lie apart, and how long they are."""
    if lines.dtype != np.float32 or lines.ndim != 2 or lines.strides[1] != 4 or lines.strides[0] % 4:
        raise ValueError("logits are float32 [rows, vocab], each row in one piece of memory")
    if len(at) and not 0 <= at.min() <= at.max() < len(lines):
        raise ValueError(f"a row is asked for that is not among the {len(lines)}")
    return lines.strides[0] // 4, lines.shape[1]
