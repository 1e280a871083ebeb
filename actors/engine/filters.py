"""Which tokens may be drawn at all: top_k, top_p and min_p as one threshold per row.

Pure functions over rows of scaled logits whose maximum is 0. Tokens with equal logits stand or fall
together, so the outcome does not hang on a sort's whims. The order is vLLM's: min_p on the whole
distribution, then top_k, then top_p on what is left.
"""

import numpy as np
import numpy.typing as npt

HEAD = 256  # likeliest tokens looked at first: top_p rarely needs more, and finding them costs half a full sort

Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def restrict(weights: Logits, scaled: Logits, top_k: Rows, top_p: Floats, min_p: Floats) -> None:
    """Set the weights [rows, >= vocab] of all tokens that `scaled` [rows, vocab] rules out to 0, in place.

    `weights` is exp(scaled), perhaps padded with zeros. Off: top_k >= vocab, top_p >= 1, min_p 0.
    """
    vocab = scaled.shape[1]
    floor = np.full(len(scaled), -np.inf)
    np.log(min_p, out=floor, where=min_p > 0)
    floor = np.minimum(floor, 0.0)  # the likeliest always stays
    if (top_k < vocab).any() or (top_p < 1.0).any():
        head = -np.sort(-_likeliest(scaled, min(HEAD, vocab)), axis=1)
        floor = np.maximum(floor, _kth(scaled, head, top_k))
        _drop(weights, scaled, floor)
        floor = np.maximum(floor, _nucleus(scaled, head, floor, top_p, weights.sum(axis=1, dtype=np.float64)))
    _drop(weights, scaled, floor)


def _drop(weights: Logits, scaled: Logits, floor: Floats) -> None:
    if (floor > -np.inf).any():
        weights[:, : scaled.shape[1]] *= scaled >= floor[:, None]


def _likeliest(scaled: Logits, count: int) -> Logits:
    """In any order; -inf where there are fewer. Partitions are slow in rows that are all the same but for a few."""
    vocab = scaled.shape[1]
    if count == vocab:
        return scaled
    left = scaled > -np.inf
    sparse = left.sum(axis=1) <= count
    found = np.full((len(scaled), count), -np.inf, np.float32)
    for row in np.flatnonzero(sparse):
        values = scaled[row][left[row]]
        found[row, : len(values)] = values
    if not sparse.all():
        found[~sparse] = np.partition(scaled[~sparse], vocab - count, axis=1)[:, vocab - count :]
    return found


def _kth(scaled: Logits, head: Logits, top_k: npt.NDArray[np.int64]) -> Floats:
    """Each row's k-th largest value; -inf where top_k is off."""
    vocab, ahead = scaled.shape[1], head.shape[1]
    floor = np.where(top_k < vocab, head[np.arange(len(head)), np.minimum(top_k, ahead) - 1], -np.inf)
    for row in np.flatnonzero((top_k > ahead) & (top_k < vocab)):
        place = vocab - int(top_k[row])
        floor[row] = np.partition(scaled[row], place)[place]
    return floor


def _nucleus(scaled: Logits, head: Logits, floor: Floats, top_p: Floats, mass: Floats) -> Floats:
    """The value of the last token in the smallest set that holds `top_p` of `mass`; -inf where top_p is off."""
    needed, ahead = top_p * mass, head.shape[1]
    ends = _reaches(head, floor, needed)
    found = np.where(top_p < 1.0, head[np.arange(len(head)), np.minimum(ends, ahead - 1)], -np.inf)
    if ahead < scaled.shape[1]:
        for row in np.flatnonzero((top_p < 1.0) & (ends == ahead)):
            found[row] = _select(scaled[row][scaled[row] >= floor[row]], float(needed[row]))
    return found


def _select(values: Logits, needed: float) -> float:
    """The value at which the running sum of weights, largest first, reaches `needed`: quickselect by mass."""
    passed = 0.0
    while len(values) > HEAD:
        middle = len(values) // 2
        split = np.partition(values, middle)
        upper = float(np.exp(split[middle:]).sum(dtype=np.float64))
        if passed + upper >= needed:
            values = split[middle:]
        else:
            passed, values = passed + upper, split[:middle]
    values = -np.sort(-values)
    end = int((passed + np.exp(values, dtype=np.float64).cumsum() < needed).sum())
    return float(values[min(end, len(values) - 1)])


def _reaches(values: Logits, floor: Floats, needed: Floats) -> Rows:
    """Where the running sum of the weights of sorted `values` first reaches `needed`; their number if never."""
    weights = np.exp(values, dtype=np.float64)
    weights *= values >= floor[:, None]
    reached: Rows = (weights.cumsum(axis=1) < needed[:, None]).sum(axis=1)
    return reached
