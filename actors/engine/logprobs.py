"""Log probabilities of the token taken and of the likeliest ones, from the raw logits (vLLM's default)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from actors.messages import TokenLogprob

LEAST = -9999.0  # what the OpenAI API gives for a token without probability: JSON has no minus infinity


def logprobs(logits: npt.NDArray[np.float32], tokens: Sequence[int], tops: Sequence[int]) -> list[TokenLogprob]:
    """For each row of `logits` [rows, vocab] (no NaN, some finite maximum) its token's and its `tops` likeliest."""
    with np.errstate(over="ignore"):  # what overflows to -inf has no weight anyway
        scaled = logits - logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(scaled).sum(axis=1, dtype=np.float64)).tolist()
    found = []
    for values, total, token, top in zip(scaled, sums, tokens, tops, strict=True):
        likeliest = _likeliest(values, top)
        found.append(
            TokenLogprob(
                token,
                max(float(values[token]) - total, LEAST),
                tuple((other, max(value - total, LEAST)) for other, value in likeliest),
            )
        )
    return found


def _likeliest(values: npt.NDArray[np.float32], count: int) -> list[tuple[int, float]]:
    """The `count` largest with their ids, largest first, equal ones by id."""
    count = min(count, len(values))
    if count == 0:
        return []
    among = np.flatnonzero(values >= np.partition(values, -count)[-count])
    best = among[np.argsort(-values[among], kind="stable")][:count]
    return list(zip(best.tolist(), values[best].tolist(), strict=True))
