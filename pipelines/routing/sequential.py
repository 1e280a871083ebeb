"""Intervals that hold at all times at once, however often and whenever one looks.

Confidence sequences for a mean of values from 0 to 1 and for a quantile, both from one martingale: that a sum of values
with mean p is as large as it is, in times of what it would be if p were drawn from Jeffreys' prior,

    M_n(p) = B(a + s, a + n - s) / B(a, a) / (p^s (1 - p)^(n - s)),    a = 1/2,

exceeds 1/alpha at any n with a chance of at most alpha (Ville's inequality; Robbins, "Statistical methods related to
the law of the iterated logarithm", Ann. Math. Stat. 41(5), 1970; Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Ann. Stat. 49(2), 2021). For values between 0 and 1 that are not
just 0 or 1 it holds too, since each factor is convex in the value. How many of n values lie below a quantile of level p
is such a sum, so ranks bound the quantile without a word on the distribution (Howard and Ramdas, "Sequential estimation
of quantiles with applications to A/B testing and best-arm identification", Bernoulli 28(3), 2022; of canaries: Lindon,
Sanden and Shirikian, "Rapid regression detection in software deployments through sequential testing", KDD 2022).

Of a finite set, each of which is drawn once in an order of chance, the same holds for what the whole of it comes to,
with the chance of what was drawn in place of the power (Waudby-Smith and Ramdas, "Confidence sequences for sampling
without replacement", NeurIPS 2020); when all are drawn nothing is left to be unsure of.

Knows numbers. Knows nothing of versions and answers.
"""

import math
from collections.abc import Callable

_PRIOR = 0.5
_HALVINGS = 26  # of an interval of length 1: finer than anybody reads


def evidence(total: float, count: int, mean: float) -> float:
    """ln M_n: that `count` values sum up to `total`, against a `mean` from 0 to 1."""
    against = _log(total, mean) + _log(count - total, 1.0 - mean)
    return _beta(_PRIOR + total, _PRIOR + count - total) - _beta(_PRIOR, _PRIOR) - against


def mean(total: float, count: int, alpha: float) -> tuple[float, float]:
    """Between what the mean of values from 0 to 1 lies, at all times at once with a chance of 1 - `alpha`."""
    if count == 0:
        return 0.0, 1.0
    there, much = total / count, -math.log(alpha)
    low = 0.0 if total == 0 else _edge(there, 0.0, lambda at: evidence(total, count, at) < much)
    high = 1.0 if total == count else _edge(there, 1.0, lambda at: evidence(total, count, at) < much)
    return low, high


def share(total: int, count: int, size: int, alpha: float) -> tuple[float, float]:
    """Between what the share of 1s among `size` lies, of which `count` were drawn, each once, and `total` are 1s."""
    much = -math.log(alpha)

    def plausible(ones: int) -> bool:
        return _drawn(total, count, ones, size) < much

    least, most = total, size - (count - total)
    likely = min(max(round(total / count * size), least), most)
    return _last(likely, least, plausible) / size, _last(likely, most, plausible) / size


def _drawn(total: int, count: int, ones: int, size: int) -> float:
    """ln of how much likelier so many 1s are under the prior than with `ones` of them among all."""
    prior = _choose(count, total) + _beta(_PRIOR + total, _PRIOR + count - total) - _beta(_PRIOR, _PRIOR)
    return prior - _choose(ones, total) - _choose(size - ones, count - total) + _choose(size, count)


def _choose(among: int, some: int) -> float:
    return math.lgamma(among + 1) - math.lgamma(some + 1) - math.lgamma(among - some + 1)


def ranks(level: float, count: int, alpha: float) -> tuple[int, int]:
    """Between how many and how many of `count` values the quantile of that level has below it or at it."""
    much, middle = -math.log(alpha), round(level * count)

    def plausible(below: int) -> bool:
        return evidence(below, count, level) < much

    if not plausible(middle):  # a handful of values and a level near 0 or 1
        return 0, count
    return _last(middle, 0, plausible), _last(middle, count, plausible)


def _edge(inside: float, outside: float, holds: Callable[[float], bool]) -> float:
    """Where what holds at `inside` ceases to hold on the way to `outside`; a little further out, never in."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if holds(middle):
            inside = middle
        else:
            outside = middle
    return outside


def _last(inside: int, outside: int, holds: Callable[[int], bool]) -> int:
    """The last whole number on the way from `inside` to `outside` for which it holds."""
    if holds(outside):
        return outside
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside


def _log(times: float, chance: float) -> float:
    if times == 0:
        return 0.0
    return times * math.log(chance) if chance > 0 else -math.inf


def _beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
