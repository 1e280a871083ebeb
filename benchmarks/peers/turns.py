"""A piece of the comparison: our engine and one peer on the same prompts, in turns, in both orders.

Owns the order of things and what a piece records. Knows engines only as processes.
"""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from benchmarks.peers.process import Engine
from benchmarks.peers.workload import COLUMNS, PROMPT_TOKENS, counted, prompts, shape

ANSWER_SECONDS = 150.0
ATTEMPTS = 3
FIRST_TOKENS_OF = 16
FIRST_SEED = 16
WARM = ((1, PROMPT_TOKENS, 8), (8, PROMPT_TOKENS, 8), (32, PROMPT_TOKENS, 8), (1, 512, 1))  # compiles, packs, pages in


@dataclass
class Side:
    """One engine in a piece."""

    name: str
    engine: Engine
    load_seconds: float
    versions: dict[str, str]


@dataclass
class Taken:
    """Tokens a second of each side and column, and how many pairs were taken again or kept though unsteady."""

    samples: dict[str, dict[str, list[float]]]
    again: int = 0
    unsteady: int = 0


def alternate(
    sides: Sequence[Side],
    columns: Sequence[str],
    repeats: int,
    seed: int,
    steady: Callable[[bool], bool],
    say: Callable[[str], None],
) -> Taken:
    """Two pairs of samples a repeat and column, one in each order of the sides.

    A pair that began or ended where the machine was not `steady` is taken again, whatever its figures were;
    `steady(True)` waits a while until it is.
    """
    taken = Taken({side.name: {column: [] for column in columns} for side in sides})
    turn = count(seed * 1_000)
    for _ in range(repeats):
        for ordered in (list(sides), list(reversed(sides))):
            for column in columns:
                for attempt in range(ATTEMPTS):
                    pair = _pair(ordered, column, next(turn)) if steady(True) or attempt == ATTEMPTS - 1 else None
                    if pair is not None and steady(False):
                        break
                    if attempt < ATTEMPTS - 1:
                        taken.again += 1
                else:
                    taken.unsteady += 1
                assert pair is not None
                for name, rate in pair.items():
                    taken.samples[name][column].append(rate)
                    say(f"{name} {column} {rate:,.0f}")
    return taken


def _pair(ordered: Sequence[Side], column: str, seed: int) -> dict[str, float]:
    sequences, tokens_in, tokens_out = shape(column)
    asked = prompts(sequences, tokens_in, random.Random(f"turn {seed}"))
    return {side.name: counted(column) / side.engine.generate(asked, tokens_out, ANSWER_SECONDS)[1] for side in ordered}


def warm(side: Side, columns: Sequence[str]) -> None:
    """Work like the measured work that nobody times, on other prompts: seeds are words, as -1 is 1 for `random`."""
    most = max((shape(column)[0] for column in columns), default=1)
    for sequences, tokens_in, tokens_out in WARM:
        if sequences <= most:
            side.engine.generate(
                prompts(sequences, tokens_in, random.Random(f"warm {sequences} {tokens_in}")),
                tokens_out,
                2 * ANSWER_SECONDS,
            )


def first_tokens(side: Side) -> list[int]:
    """The first greedy token of the prompts that everyone is compared with float32 on, each read alone."""
    asked = prompts(FIRST_TOKENS_OF, PROMPT_TOKENS, random.Random(FIRST_SEED))
    return [side.engine.generate([prompt], 1, ANSWER_SECONDS)[0][0][0] for prompt in asked]


def equal(found: Sequence[int], reference: Sequence[int]) -> int:
    """How many are the same."""
    return sum(one == other for one, other in zip(found, reference, strict=True))


def ratios(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, float]:
    """Ours to theirs, of the medians of one piece: the machine was the same for both."""
    return {
        column: statistics.median(ours[column]) / statistics.median(theirs[column])
        for column in COLUMNS
        if ours.get(column) and theirs.get(column)
    }
