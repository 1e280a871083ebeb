"""What top_k, top_p and min_p leave of a row in which most is ruled out already."""

import numpy as np
import pytest

from actors.engine import filters

VOCAB = 3000


@pytest.mark.parametrize("left", [1, 5, filters.HEAD, filters.HEAD + 1, 2000])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(20, 1.0, 0.0), (VOCAB, 0.8, 0.0), (40, 0.9, 0.05)])
def test_a_sparse_row_is_filtered_as_what_is_left_of_it(left: int, top_k: int, top_p: float, min_p: float):
    dice = np.random.default_rng(left)
    places = np.sort(dice.choice(VOCAB, left, replace=False))
    values = dice.standard_normal(left).astype(np.float32) * 2
    values -= values.max()
    sparse = np.full(VOCAB, -np.inf, np.float32)
    sparse[places] = values
    dense = dice.standard_normal(VOCAB).astype(np.float32)
    rows = np.stack([sparse, dense - dense.max()])
    weights = np.exp(rows)
    filters.restrict(weights, rows, np.full(2, top_k), np.full(2, top_p), np.full(2, min_p))
    alone = np.exp(values)[None]
    filters.restrict(alone, values[None], np.array([min(top_k, left)]), np.array([top_p]), np.array([min_p]))
    assert np.flatnonzero(weights[0]).tolist() == places[alone[0] > 0].tolist()
    again = np.exp(rows[1:])
    filters.restrict(again, rows[1:], np.array([top_k]), np.array([top_p]), np.array([min_p]))
    assert (again[0] == weights[1]).all()
