"""Log probabilities of the token taken and of the likeliest ones, from the raw logits (vLLM's default)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from actors.engine.logits import LARGEST, Logits, Rows
from actors.messages import TokenLogprob
from actors.models.kernels import choice

LEAST = -9999.0  # what the OpenAI API gives for a token without probability: JSON has no minus infinity

Weighed = tuple[Logits, npt.NDArray[np.float64], Rows]  # as `choice.weigh` has them


def logprobs(lines: Logits, at: Rows, tokens: Sequence[int], tops: Sequence[int]) -> list[TokenLogprob]:
    """For each of the rows `at` of `lines` [rows, vocab] its token's and its `tops` likeliest.

    NaN counts as -inf, +inf as the largest float; without any number nothing is likely.
    """
    most = min(max(tops), lines.shape[1])
    largest, sums, likeliest = choice.weigh(lines, at, most) or _weigh(lines, at, most)
    logs = np.log(sums, where=sums > 0, out=np.zeros_like(sums))
    base = np.where(sums > 0, largest, np.float32(0))
    found = []
    for index, (row, token, top) in enumerate(zip(at.tolist(), tokens, tops, strict=True)):
        places = likeliest[index]
        among = [token, *places[places >= 0][:top].tolist()]
        values = _cleaned(lines[row, among]).astype(np.float64) - base[index]
        chances = np.maximum(values - logs[index], LEAST).tolist()
        found.append(TokenLogprob(token, chances[0], tuple(zip(among[1:], chances[1:], strict=True))))
    return found


def _cleaned(values: Logits) -> Logits:
    return np.nan_to_num(values, nan=-np.inf, posinf=LARGEST, neginf=-np.inf)


def _weigh(lines: Logits, at: Rows, most: int) -> Weighed:
    """The same in numpy."""
    largest, sums = np.empty(len(at), np.float32), np.zeros(len(at))
    likeliest = np.full((len(at), most), -1, np.int64)
    for index, row in enumerate(at.tolist()):
        values = _cleaned(lines[row])
        largest[index] = values.max()
        if largest[index] == -np.inf:
            continue
        with np.errstate(over="ignore"):  # what overflows to -inf has no weight anyway
            sums[index] = np.exp(values - largest[index]).sum(dtype=np.float64)
        if most:
            among = np.flatnonzero((values >= np.partition(values, -most)[-most]) & (values > -np.inf))
            best = among[np.argsort(-values[among], kind="stable")][:most]
            likeliest[index, : len(best)] = best
    return largest, sums, likeliest
