"""Draw from what a form allows, where a draw from everything did not fit: the likeliest, or one at random.

Pure functions over rows of logits [vocab] and of bits, 32 tokens a word. Where few tokens fit, all rows are drawn from
at once, in a grid of those tokens; where many do, each row by itself. Rows never meet in any sum, and a token does not
depend on which way it was drawn. Know nothing of forms and sequences.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.engine import chance
from actors.engine.logits import LARGEST, Logits, Rows

FEW = 512  # tokens: a grid of as many columns costs less than a look at a whole vocabulary

Bits = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How each row wants to be drawn from: the likeliest token unless `random`."""

    random: npt.NDArray[np.bool_]
    temperature: Logits
    uniform: Floats

    def of(self, rows: Rows) -> "Wishes":
        """Those of `rows`."""
        return Wishes(self.random[rows], self.temperature[rows], self.uniform[rows])


def drawn(lines: Logits, at: Rows, bits: Bits, many: Rows, wishes: Wishes, fallback: int) -> Rows:
    """A token for each row of `bits` [rows, words], `many` of them set, by the logits `lines[at]`.

    `fallback` where none is allowed.
    """
    tokens = np.full(len(bits), fallback, np.int64)
    few = np.flatnonzero((many > 0) & (many <= FEW))
    if len(few):
        tokens[few] = _of_few(lines, at[few], bits[few], many[few], wishes.of(few))
    for row in np.flatnonzero(many > FEW).tolist():
        tokens[row] = _of_many(lines[at[row]], allowed(bits[row], lines.shape[1]), wishes, row)
    return tokens


def counts(bits: Bits) -> Rows:
    """How many bits each row has."""
    words = np.flatnonzero(bits != 0)  # of truth values it is five times as quick as of numbers
    ones = np.bitwise_count(bits.reshape(-1)[words])
    return np.bincount(words // bits.shape[1], ones, len(bits)).astype(np.int64)


def allowed(bits: Bits, vocab: int) -> npt.NDArray[np.bool_]:
    """For each token of the vocabulary whether its bit is set."""
    return np.unpackbits(bits.view(np.uint8), count=vocab, bitorder="little").view(np.bool_)


def strike(line: Logits, fits: npt.NDArray[np.bool_]) -> None:
    """Set to -inf, in place, what does not fit. What does is never all struck out."""
    line[:] = np.where(fits, line, np.float32(-np.inf))  # five times as quick as to assign by a mask
    if not (line > -np.inf).any() and fits.any():
        line[fits] = 0.0


def _of_few(lines: Logits, at: Rows, bits: Bits, many: Rows, wishes: Wishes) -> Rows:
    words = np.flatnonzero(bits != 0)  # most words of such rows are empty
    set_bits = np.flatnonzero(np.unpackbits(bits.reshape(-1)[words].view(np.uint8), bitorder="little").view(np.bool_))
    words = words[set_bits >> 5]
    row, token = words // bits.shape[1], (words % bits.shape[1] << 5) + (set_bits & 31)
    each, column = np.arange(len(bits)), np.arange(len(row)) - (many.cumsum() - many)[row]
    tokens = np.zeros((len(bits), many.max()), np.int64)
    tokens[row, column] = token
    values = np.full(tokens.shape, -np.inf, np.float32)
    values[row, column] = lines[at[row], token]
    best = values.max(axis=1)
    if not np.isfinite(best).all():
        values = _finite(values)
        best = values.max(axis=1)
    column = values.argmax(axis=1)
    rolled = np.flatnonzero(wishes.random & (best > -np.inf))
    if len(rolled):
        with np.errstate(over="ignore"):  # what overflows to -inf had no weight anyway
            scaled = (values[rolled] - best[rolled, None]) / wishes.temperature[rolled, None]
        running = np.exp(scaled).cumsum(axis=1, dtype=np.float64)
        target = wishes.uniform[rolled] * running[:, -1]
        column[rolled] = np.minimum((running <= target[:, None]).sum(axis=1), many[rolled] - 1)
    chosen: Rows = tokens[each, column]
    return chosen


def _of_many(line: Logits, fits: npt.NDArray[np.bool_], wishes: Wishes, row: int) -> int:
    values = np.where(fits, line, np.float32(-np.inf))
    best = int(values.argmax())
    if not np.isfinite(values[best]):
        values = _finite(values)
        best = int(values.argmax())
    if values[best] == -np.inf:
        return int(fits.argmax())
    if not wishes.random[row]:
        return best
    with np.errstate(over="ignore"):
        weights = np.exp((values - values[best]) / wishes.temperature[row])
    return chance.walk(weights, float(wishes.uniform[row]))


def _finite(values: Logits) -> Logits:
    return np.nan_to_num(values, nan=-np.inf, posinf=LARGEST, neginf=-np.inf)
