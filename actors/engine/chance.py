"""Random numbers that are looked up, not drawn: one uniform per (seed, choice, position in the output).

Nothing here keeps state, so a sequence meets the same numbers whoever shares its batch, after a
preemption and when it is replayed on another replica.

SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; the
constants are those of Sebastiano Vigna's public-domain splitmix64.c. Its n-th output is
mix(seed + n * GAMMA), which makes it a counter-based generator as it stands.
"""

import numpy as np
import numpy.typing as npt

GAMMA = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, made odd
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 2**64 - 1
LANES = 64  # terms of one column sum in `draw`; a power of two near the square root of a vocabulary

Floats = npt.NDArray[np.float64]


def key(seed: int, choice: int) -> int:
    """The 64-bit stream of one choice of one seed."""
    return _mix(_mix(seed + GAMMA & _WORD) + (choice + 1) * GAMMA & _WORD)


def uniforms(keys: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]) -> Floats:
    """For each row the number in [0, 1) that `key` holds at `position`: 53 random bits."""
    word = keys + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(GAMMA)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_FIRST)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_SECOND)
    word ^= word >> np.uint64(31)
    return np.asarray((word >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def draw(weights: npt.NDArray[np.float32], uniform: Floats) -> npt.NDArray[np.int64]:
    """Per row one index with probability proportional to its weight: the inverse of the CDF at `uniform`.

    `weights` is [rows, LANES * columns], not negative, each row with a positive sum; sums are in float64.
    The CDF walks down the columns of the row seen as LANES x columns: any fixed order gives the same
    distribution, and sums over a column are ten times cheaper than a running sum over a vocabulary.
    Rows never meet.
    """
    rows, columns = len(weights), weights.shape[1] // LANES
    grid = weights.reshape(rows, LANES, columns)
    each = np.arange(rows)
    column, rest = _invert(grid.sum(axis=1, dtype=np.float64), uniform, None)
    lane, _ = _invert(grid[each, :, column].astype(np.float64), None, rest)
    token: npt.NDArray[np.int64] = lane * columns + column
    return token


def _invert(weights: Floats, uniform: Floats | None, target: Floats | None) -> tuple[npt.NDArray[np.int64], Floats]:
    """The first index whose running sum exceeds the target, and how far the target reaches into it."""
    running = weights.cumsum(axis=1)
    total = running[:, -1]
    if target is None:
        assert uniform is not None
        target = uniform * total
    # Rounding may carry the target to the total or past it: the last index with any weight is meant then.
    target = np.minimum(target, np.nextafter(total, 0.0))
    index = (running <= target[:, None]).sum(axis=1)
    each = np.arange(len(weights))
    return index, target - (running[each, index] - weights[each, index])


def _mix(word: int) -> int:
    word = (word ^ word >> 30) * _FIRST & _WORD
    word = (word ^ word >> 27) * _SECOND & _WORD
    return word ^ word >> 31
