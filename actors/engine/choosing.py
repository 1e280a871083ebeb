"""One token of each row of logits: the likeliest, or one at random behind top_k, top_p, min_p and a form.

Pure functions over rows that never meet in any sum, so that a token depends on its own row alone. Compiled where this
machine has kernels (`actors/models/kernels/src/choose.cpp`), where logits are neither copied nor changed; in numpy
elsewhere. Know nothing of sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.engine import chance, filters
from actors.engine.logits import Logits, Rows, clean
from actors.engine.mask import Bits, Mask
from actors.models.kernels import choice, interface

CHUNK = 2**18  # numbers that numpy works on at a time: 1 MiB stays in a core's cache

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How rows want their tokens. Off: `top_k` of at least the vocabulary, `top_p` of 1, `min_p` of 0."""

    random: npt.NDArray[np.bool_]  # else the likeliest
    temperature: Logits
    top_k: Rows
    top_p: Floats
    min_p: Floats
    uniform: Floats  # where in the distribution the token lies

    def __len__(self) -> int:
        return len(self.random)

    def of(self, rows: "Rows | slice") -> "Wishes":
        """Those of `rows`."""
        return Wishes(
            self.random[rows], self.temperature[rows], self.top_k[rows], self.top_p[rows], self.min_p[rows],
            self.uniform[rows],
        )  # fmt: skip


def chosen(
    lines: Logits, at: Rows, wishes: Wishes, fallback: int, masks: Sequence[Mask] | None = None
) -> tuple[Rows, Rows]:
    """A token for each of `wishes` by the logits `lines[at]`, and those of the wishes whose row has no number.

    NaN counts as -inf, +inf as the largest float. `masks`, one a wish, say which tokens may be taken. Without a number,
    a wish gets the first of them, or `fallback`.
    """
    if masks is not None and not (len(masks) == len(wishes) and all(32 * len(m.bits) >= lines.shape[1] for m in masks)):
        raise ValueError("each wish has a mask, with a bit for each token of the vocabulary")
    tokens = _compiled(lines, at, wishes, masks)
    if tokens is None:
        tokens = _plain(lines, at, wishes, masks)
    empty = np.flatnonzero(tokens < 0)
    tokens[empty] = fallback
    if masks is not None:
        for wish in empty.tolist():
            fits = allowed(masks[wish].bits, lines.shape[1])
            tokens[wish] = fits.argmax() if fits.any() else fallback
    return tokens, empty


def allowed(bits: Bits, vocab: int) -> npt.NDArray[np.bool_]:
    """For each token of the vocabulary whether its bit is set."""
    return np.unpackbits(bits.view(np.uint8), count=vocab, bitorder="little").view(np.bool_)


def compiled() -> bool:
    """Whether this machine has the compiled code, which is made now if need be and not while somebody waits."""
    return interface.available()


def _compiled(lines: Logits, at: Rows, wishes: Wishes, masks: Sequence[Mask] | None) -> Rows | None:
    made = np.empty(len(wishes), choice.WISH)
    made["row"], made["uniform"] = at, np.where(wishes.random, wishes.uniform, -1.0)
    made["temperature"], made["top_k"] = wishes.temperature, wishes.top_k
    made["top_p"], made["min_p"] = wishes.top_p, wishes.min_p
    made["fits"] = 0 if masks is None else [mask.address for mask in masks]
    return choice.choose(lines, made)


def _plain(lines: Logits, at: Rows, wishes: Wishes, masks: Sequence[Mask] | None) -> Rows:
    """The same in numpy; -1 where a row has no number."""
    vocab = lines.shape[1]
    each = max(1, CHUNK // vocab)
    tokens = np.empty(len(wishes), np.int64)
    for start in range(0, len(wishes), each):
        part = slice(start, start + each)
        work = lines[at[part]]
        if masks is not None:
            for line, own in zip(work, masks[part], strict=True):
                line[~allowed(own.bits, vocab)] = -np.inf
        empty = clean(work, 0)
        tokens[part] = _taken(work, wishes.of(part))
        tokens[part][empty] = -1
    return tokens


def _taken(work: Logits, wishes: Wishes) -> Rows:
    """The token of each row; `work` is ours to change."""
    taken: Rows = work.argmax(axis=1)
    drawn = np.flatnonzero(wishes.random)
    if len(drawn):
        taken[drawn] = _drawn(work[drawn], wishes.of(drawn))
    return taken


def _drawn(work: Logits, wishes: Wishes) -> Rows:
    vocab = work.shape[1]
    with np.errstate(over="ignore"):  # what overflows to -inf had no weight anyway
        work -= work.max(axis=1, keepdims=True)
        work /= wishes.temperature[:, None]
    weights = np.zeros((len(work), -(-vocab // chance.LANES) * chance.LANES), np.float32)
    np.exp(work, out=weights[:, :vocab])
    asking = np.flatnonzero((wishes.top_k < vocab) | (wishes.top_p < 1.0) | (wishes.min_p > 0.0))
    if len(asking):
        part, own = weights[asking], wishes.of(asking)
        filters.restrict(part, work[asking], own.top_k, own.top_p, own.min_p)
        weights[asking] = part
    return chance.draw(weights, wishes.uniform)
