"""The generator against published values, and the inverse CDF."""

import numpy as np
import pytest

from actors.engine.chance import GAMMA, LANES, draw, key, uniforms


def test_the_generator_is_splitmix64():
    """The first outputs for seed 1234567, as published with the reference code (Rosetta Code, "SplitMix64")."""
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    found = uniforms(np.full(5, 1234567, np.uint64), np.arange(5))
    assert found.tolist() == [(word >> 11) / 2**53 for word in words]


def test_keys_spread():
    assert len({key(seed, choice) for seed in range(-50, 50) for choice in range(50)}) == 5_000
    assert key(0, 0) != key(GAMMA, -1)


def test_uniforms_are_uniform_over_positions_and_over_keys():
    keys = np.array([key(seed, 0) for seed in range(100)], np.uint64)
    grid = np.array([uniforms(keys, np.full(100, position)) for position in range(1_000)])
    counts = np.histogram(grid, bins=100, range=(0, 1))[0]
    assert abs(((counts - 1_000) ** 2 / 1_000).sum() - 99) < 4 * np.sqrt(2 * 99)
    assert abs(np.corrcoef(grid[:, 0], grid[:, 1])[0, 1]) < 0.1
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1.0 - 2**-53])
def test_nothing_without_weight_is_drawn(uniform):
    for place in (0, 5, LANES, 3 * LANES - 1):
        weights = np.zeros((1, 3 * LANES), np.float32)
        weights[0, place] = 1e-30
        assert draw(weights, np.array([uniform])).tolist() == [place]


def test_each_share_of_the_unit_interval_is_a_token():
    rng = np.random.default_rng(0)
    weights = (rng.random((1, 2 * LANES)) * (rng.random((1, 2 * LANES)) > 0.5)).astype(np.float32)
    grid = (np.arange(100_000) + 0.5) / 100_000
    shares = np.bincount(draw(np.repeat(weights, len(grid), 0), grid), minlength=2 * LANES) / len(grid)
    assert np.abs(shares - weights[0] / weights.sum()).max() < 2e-5
