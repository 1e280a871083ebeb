import json

import pytest

from pipelines.lifecycle.recipe import Recipe


def test_the_rate_rises_then_falls_to_its_end():
    recipe = Recipe(steps=100, warmup_steps=10, last_rate=0.02)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


def test_long_rows_come_now_and_then_with_as_many_tokens():
    recipe = Recipe(rows=16, width=256, long_every=8)
    layouts = [recipe.layout(step) for step in range(16)]
    assert [step for step, (_, width) in enumerate(layouts) if width == 1024] == [7, 15]
    assert {rows * width for rows, width in layouts} == {4096}


def test_it_crosses_a_process():
    recipe = Recipe(steps=5, seed=3)
    assert Recipe.from_plain(json.loads(json.dumps(recipe.plain()))) == recipe
