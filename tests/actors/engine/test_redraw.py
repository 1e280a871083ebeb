"""The second draw: what comes out is allowed, the likeliest is the likeliest, and its two ways are one."""

import numpy as np
import pytest

from actors.engine import chance, redraw
from actors.engine.redraw import Wishes, allowed, counts, drawn, strike

VOCAB, WORDS = 2000, 63
ROWS = 6


def packed(fits: np.ndarray) -> np.ndarray:
    padded = np.zeros((len(fits), 32 * WORDS), np.bool_)
    padded[:, : fits.shape[1]] = fits
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint32)


def wishes(random: bool, uniform: np.ndarray | None = None, rows: int = ROWS) -> Wishes:
    numbers = np.linspace(0.01, 0.99, rows) if uniform is None else uniform
    return Wishes(np.full(rows, random), np.full(rows, 0.7, np.float32), numbers)


def forms(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and for each row what is allowed: from a single token to nearly all."""
    dice = np.random.default_rng(seed)
    fits = np.stack([dice.random(VOCAB) < share for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)])
    fits[:, 7] = True
    return dice.standard_normal((ROWS, VOCAB)).astype(np.float32) * 3, fits


def of(lines: np.ndarray, fits: np.ndarray, how: Wishes) -> np.ndarray:
    bits = packed(fits)
    return drawn(lines, np.arange(len(lines)), bits, counts(bits), how, 5)


def test_bits_are_counted_and_spread():
    _, fits = forms(0)
    assert counts(packed(fits)).tolist() == fits.sum(axis=1).tolist()
    assert all((allowed(row, VOCAB) == wanted).all() for row, wanted in zip(packed(fits), fits, strict=True))


def test_the_likeliest_is_the_first_of_the_largest_that_fit():
    for seed in range(20):
        lines, fits = forms(seed)
        lines = lines.round()  # many are equal
        assert of(lines, fits, wishes(False)).tolist() == np.where(fits, lines, -np.inf).argmax(axis=1).tolist()


@pytest.mark.parametrize("random", [False, True])
def test_few_and_many_are_drawn_alike(random: bool, monkeypatch: pytest.MonkeyPatch):
    for seed in range(20):
        lines, fits = forms(seed)
        how = wishes(random)
        monkeypatch.setattr(redraw, "FEW", 0)
        each = of(lines, fits, how)
        monkeypatch.setattr(redraw, "FEW", VOCAB)
        assert of(lines, fits, how).tolist() == each.tolist()
        assert fits[np.arange(ROWS), each].all()


def test_a_row_does_not_depend_on_its_neighbours():
    lines, fits = forms(3)
    together, how = of(lines, fits, wishes(True)), wishes(True)
    for row in range(ROWS):
        one = np.array([row])
        assert of(lines[one], fits[one], how.of(one)).tolist() == [together[row]]


def test_draws_follow_the_weights_of_what_fits():
    draws, line = 4000, np.full((1, VOCAB), 4.0, np.float32)
    fits = np.zeros((1, VOCAB), np.bool_)
    line[0, [3, 40, 1999]], fits[0, [3, 40, 1999]] = [0.0, 0.7, 1.4], True
    numbers = (np.arange(draws) + 0.5) / draws
    tokens = of(line.repeat(draws, 0), fits.repeat(draws, 0), wishes(True, numbers, draws))
    weights = np.exp([0.0, 1.0, 2.0])
    found = [(tokens == token).sum() for token in (3, 40, 1999)]
    assert found == pytest.approx(draws * weights / weights.sum(), abs=1.5)


@pytest.mark.parametrize("few", [0, VOCAB])
@pytest.mark.parametrize("random", [False, True])
def test_what_is_no_number_is_never_likely(few: int, random: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redraw, "FEW", few)
    lines = np.zeros((4, VOCAB), np.float32)
    fits = np.zeros((4, VOCAB), np.bool_)
    fits[:3, [10, 20]] = True
    lines[0, 10], lines[1, 20], lines[2, [10, 20]] = np.nan, np.inf, -np.inf
    assert of(lines, fits, wishes(random, rows=4)).tolist() == [20, 20, 10, 5]


def test_what_fits_is_never_all_struck_out():
    fits = np.zeros(VOCAB, np.bool_)
    fits[[4, 9]] = True
    line = np.arange(VOCAB, dtype=np.float32)
    strike(line, fits)
    assert np.flatnonzero(line > -np.inf).tolist() == [4, 9]
    assert line[9] == 9.0
    line = np.full(VOCAB, -np.inf, np.float32)
    strike(line, fits)
    assert line[[4, 9]].tolist() == [0.0, 0.0]
    assert line[5] == -np.inf


@pytest.mark.parametrize("size", [2, 255, 256, 257, 1000])
def test_a_walk_in_blocks_is_a_walk(size: int):
    weights = np.random.default_rng(size).random(size).astype(np.float32)
    weights[::3] = 0.0
    running = weights.cumsum(dtype=np.float64)
    for uniform in np.linspace(0, 1, 500, endpoint=False).tolist():
        assert chance.walk(weights, uniform) == (running <= uniform * running[-1]).sum()
    assert weights[chance.walk(weights, float(np.nextafter(1.0, 0.0)))] > 0
