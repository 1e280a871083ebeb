"""A token of each row against the definition: compiled and in numpy, with and without forms and filters."""

import numpy as np
import pytest

from actors.engine.choosing import Wishes, allowed, chosen
from actors.engine.logprobs import LEAST, logprobs
from actors.engine.mask import FEW, Mask
from actors.models.kernels import choice, interface
from actors.models.kernels.building import AVX2, library

VOCAB, WORDS = 2003, 63  # neither whole vectors nor whole blocks
ROWS = 6
FALLBACK = 5
WAYS = ("numpy", "compiled", "avx2")
WIDE = interface.loaded


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(choice.interface, "loaded", lambda: None)
    elif interface.loaded() is None:
        pytest.skip("this machine has no kernels")
    elif request.param == "avx2":
        narrow = interface.Library(str(library(lanes=AVX2)))
        monkeypatch.setattr(choice.interface, "loaded", lambda: narrow)
    return request.param


def packed(fits: np.ndarray) -> list[Mask]:
    padded = np.zeros((len(fits), 32 * WORDS), np.bool_)
    padded[:, : fits.shape[1]] = fits
    return [Mask(bits) for bits in np.packbits(padded, axis=1, bitorder="little").view(np.uint32)]


def wishes(
    random: bool,
    uniform: np.ndarray | None = None,
    rows: int = ROWS,
    temperature: float = 0.7,
    top_k: int = 10**6,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Wishes:
    numbers = np.linspace(0.01, 0.99, rows) if uniform is None else uniform
    return Wishes(
        np.full(rows, random),
        np.full(rows, temperature, np.float32),
        np.full(rows, top_k),
        np.full(rows, top_p),
        np.full(rows, min_p),
        numbers,
    )


def forms(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and for each row what is allowed: from a single token to nearly all."""
    dice = np.random.default_rng(seed)
    fits = np.stack([dice.random(VOCAB) < share for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)])
    fits[:, 7] = True
    return dice.standard_normal((ROWS, VOCAB)).astype(np.float32) * 3, fits


def of(lines: np.ndarray, how: Wishes, fits: np.ndarray | None = None) -> list[int]:
    tokens, _ = chosen(lines, np.arange(len(lines)), how, FALLBACK, None if fits is None else packed(fits))
    return tokens.tolist()


def defined(line: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The distribution as the definitions read, in float64."""
    z = line.astype(np.float64)
    p = np.exp((z - z.max()) / temperature)
    p[p < min_p * p.max()] = 0
    if top_k < len(p):
        p[p < np.sort(p)[-top_k]] = 0
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    kept = p[order][before < top_p].min()
    p[p < kept] = 0
    return p / p.sum()


def test_both_sides_see_the_same_wish():
    fields = {name: choice.WISH.fields[name][1] for name in choice.WISH.names}
    assert fields == {name: getattr(interface.Wish, name).offset for name, _ in interface.Wish._fields_}


def test_bits_are_counted_and_spread():
    _, fits = forms(0)
    for mask, wanted in zip(packed(fits), fits, strict=True):
        assert (allowed(mask.bits, VOCAB) == wanted).all()
        assert [mask.has(token) for token in range(VOCAB)] == wanted.tolist()
        assert mask.few == (wanted.sum() <= FEW)


def test_the_likeliest_is_the_first_of_the_largest_that_fit():
    for seed in range(20):
        lines, fits = forms(seed)
        lines = lines.round()  # many are equal
        assert of(lines, wishes(False)) == lines.argmax(axis=1).tolist()
        assert of(lines, wishes(False), fits) == np.where(fits, lines, -np.inf).argmax(axis=1).tolist()


def test_a_row_does_not_depend_on_its_neighbours():
    lines, fits = forms(3)
    for how in (wishes(True), wishes(True, top_k=40, top_p=0.9)):
        together = of(lines, how, fits)
        for row in range(ROWS):
            one = np.array([row])
            assert of(lines[one], how.of(one), fits[one]) == [together[row]]
            assert chosen(lines, one, how.of(one), FALLBACK, packed(fits[one]))[0].tolist() == [together[row]]


@pytest.mark.parametrize("scale", [0.01, 1.0, 6.0])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [
        (10**6, 1.0, 0.0),
        (1, 1.0, 0.0),
        (3, 1.0, 0.0),  # fewer than there are blocks
        (60, 1.0, 0.0),  # more
        (1999, 1.0, 0.0),
        (10**6, 0.9, 0.0),
        (10**6, 0.05, 0.0),
        (10**6, 1.0 - 2**-53, 0.0),
        (10**6, 1.0, 0.05),
        (10**6, 1.0, 1.0),
        (50, 0.8, 0.0),
        (5, 0.99, 0.02),
        (10**6, 0.7, 0.01),
    ],
)
def test_every_token_has_the_part_of_all_numbers_that_it_is_due(scale: float, top_k: int, top_p: float, min_p: float):
    draws = 4000
    for seed, form in ((1, False), (2, True)):
        lines, fits = forms(seed)
        line = np.where(fits[3], lines[3] * scale, -np.inf).astype(np.float32) if form else lines[3] * scale
        how = wishes(True, (np.arange(draws) + 0.5) / draws, draws, 1.3, top_k, top_p, min_p)
        own = np.broadcast_to(lines[3] * np.float32(scale), (draws, VOCAB))
        tokens, empty = chosen(own[:1], np.zeros(draws, np.int64), how, 0, packed(fits[[3] * draws]) if form else None)
        found = np.bincount(tokens, minlength=VOCAB)
        p = defined(line, 1.3, top_k, top_p, min_p)
        assert not len(empty)
        # a set that ends within rounding of `top_p` may be a token longer or shorter
        assert found[p == 0].sum() <= draws * p[p > 0].min() + 1
        assert np.abs(found - draws * p).max() <= 1.5 + draws * p[p > 0].min()


def test_equal_logits_stand_or_fall_together():
    line = np.zeros((1, VOCAB), np.float32)
    line[0, [10, 700, 1400]] = 5.0
    numbers = np.linspace(0, 1, 3000, endpoint=False)
    for how in ({"top_k": 2}, {"top_p": 0.1}, {"min_p": 0.9}):
        own = wishes(True, numbers, 3000, **how)
        tokens, _ = chosen(line, np.zeros(3000, np.int64), own, 0)
        assert set(tokens.tolist()) == {10, 700, 1400}
    flat = wishes(True, numbers, 3000, top_p=0.5)
    tokens, _ = chosen(np.full((1, VOCAB), -3.0, np.float32), np.zeros(3000, np.int64), flat, 0)
    assert len(set(tokens.tolist())) > 1500


@pytest.mark.parametrize("how", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}, {"top_k": 3, "top_p": 0.9}])
@pytest.mark.parametrize("random", [False, True])
def test_what_is_no_number_is_never_likely(random: bool, how: dict):
    lines = np.zeros((4, VOCAB), np.float32)
    fits = np.zeros((4, VOCAB), np.bool_)
    fits[:3, [10, 20]] = True
    lines[0, 10], lines[1, 20], lines[2, [10, 20]] = np.nan, np.inf, -np.inf
    assert of(lines, wishes(random, rows=4, **how), fits) == [20, 20, 10, FALLBACK]
    _, empty = chosen(lines, np.arange(4), wishes(random, rows=4, **how), FALLBACK, packed(fits))
    assert empty.tolist() == [2, 3]
    lines[:] = np.nan
    lines[1, 2002] = -4.0
    assert of(lines, wishes(random, rows=4, **how)) == [FALLBACK, 2002, FALLBACK, FALLBACK]


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e30])
@pytest.mark.parametrize("how", [{}, {"top_k": 7}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_any_temperature_gives_tokens(temperature: float, how: dict):
    lines, _ = forms(9)
    lines[0] *= 1e37
    tokens = of(lines, wishes(True, temperature=temperature, **how))
    if temperature < 1:
        assert tokens == lines.argmax(axis=1).tolist()
    assert all(0 <= token < VOCAB for token in tokens)


@pytest.mark.parametrize("uniform", [0.0, float(np.nextafter(1.0, 0.0))])
@pytest.mark.parametrize("how", [{}, {"top_k": 50}, {"top_p": 0.9}, {"min_p": 0.001}])
def test_the_ends_of_the_distribution_are_tokens_that_have_a_chance(uniform: float, how: dict):
    lines, _ = forms(4)
    lines[:, ::3] = -np.inf
    tokens = of(lines, wishes(True, np.full(ROWS, uniform), **how))
    assert all(lines[row, token] > -np.inf for row, token in enumerate(tokens))


def test_both_sets_of_lanes_take_the_same_token(way: str):
    if way != "avx2":
        pytest.skip("compares two others")
    for seed in range(10):
        lines, fits = forms(seed)
        for how in ({}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.02, "top_k": 300, "top_p": 0.8}):
            numbers = np.random.default_rng(seed).random(ROWS)
            narrow = of(lines, wishes(True, numbers, **how), fits)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(choice.interface, "loaded", WIDE)
                assert of(lines, wishes(True, numbers, **how), fits) == narrow


def test_masks_that_do_not_hold_the_vocabulary_are_refused():
    lines, fits = forms(0)
    short = [Mask(mask.bits[: WORDS - 1]) for mask in packed(fits)]
    for masks in (short, packed(fits)[:1]):
        with pytest.raises(ValueError, match="vocabulary"):
            chosen(lines, np.arange(ROWS), wishes(True), FALLBACK, masks)
    with pytest.raises(ValueError, match="one piece"):
        Mask(packed(fits)[0].bits[::2])


def test_logits_are_left_as_they_are():
    lines, fits = forms(6)
    before = lines.copy()
    of(lines, wishes(True, top_k=9, top_p=0.7), fits)
    assert (lines == before).all()


def test_wishes_that_the_compiled_code_could_not_trust_are_refused(way: str):
    if way == "numpy":
        pytest.skip("checks nothing")
    lines, _ = forms(0)
    made = np.zeros(1, choice.WISH)
    for wrong in (lines.astype(np.float64), lines.T, lines[0]):
        with pytest.raises(ValueError, match="float32"):
            choice.choose(wrong, made)
    made["row"] = ROWS
    with pytest.raises(ValueError, match="row"):
        choice.choose(lines, made)
    with pytest.raises(ValueError, match="WISH"):
        choice.choose(lines, made[["row"]])
    with pytest.raises(ValueError, match="row"):
        choice.weigh(lines, np.array([-1]), 1)


def test_logprobs_are_those_of_the_raw_logits():
    lines, _ = forms(5)
    lines = lines.round(1)  # many are equal
    lines[1, 50], lines[2, 60], lines[3, 1:] = np.nan, np.inf, -np.inf
    tokens, tops = [1, 2, 60, 0, 4, 5], [0, 3, 6, 4, 300, 20]
    found = logprobs(lines, np.arange(ROWS), tokens, tops)
    for line, token, top, told in zip(lines.astype(np.float64), tokens, tops, found, strict=True):
        clean = np.where(np.isnan(line), -np.inf, np.minimum(line, np.finfo(np.float32).max))
        own = clean - clean.max()
        own -= np.log(np.exp(own).sum())
        best = np.argsort(-clean, kind="stable")[: min(top, int((clean > -np.inf).sum()))]
        assert told.logprob == pytest.approx(max(own[token], LEAST), abs=1e-4)
        assert [other for other, _ in told.top] == best.tolist()
        assert [value for _, value in told.top] == pytest.approx([max(own[other], LEAST) for other in best], abs=1e-4)


def test_logprobs_of_some_rows_and_of_none_that_is_a_number():
    lines, _ = forms(8)
    lines[2] = np.nan
    at = np.array([4, 2])
    some, nothing = logprobs(lines, at, [3, 7], [2, 2])
    assert some.top[0][0] == lines[4].argmax()
    assert nothing.logprob == LEAST
    assert nothing.top == ()
