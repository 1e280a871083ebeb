"""GPTQ, AWQ and SmoothQuant do what their papers promise: less error than rounding, on a layer with outliers."""

import pytest
import torch
from torch import nn

from actors.quantization.activations import Inputs, watched
from actors.quantization.calibrate import calibrate, folds
from actors.quantization.gptq import gptq, loss
from actors.quantization.network import Network
from actors.quantization.rounding import nearest
from actors.quantization.sample import Sample
from actors.quantization.scaling import Fold, awq, smooth
from actors.quantization.sensitivity import divergence
from tests.actors.quantization.conftest import FAMILIES

K = 96
TOKENS = torch.randint(0, 98, (12, 40), generator=torch.Generator().manual_seed(4))
HELD = Sample(TOKENS, torch.ones_like(TOKENS, dtype=torch.bool), torch.ones_like(TOKENS, dtype=torch.bool))


def fed(seed=0):
    """(weight, what it is fed): correlated inputs of which a few channels are much larger."""
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(400, K, generator=made) @ torch.randn(K, K, generator=made) / K**0.5
    x[:, [3, 40, 77]] *= 25
    return torch.randn(64, K, generator=made), x


def error(weight, rounded, x):
    return float((x @ (rounded.dequantize() - weight).T).square().sum())


@pytest.mark.parametrize(("bits", "group", "at_most"), [(4, 32, 0.7), (8, K, 0.7)])
def test_gptq_beats_rounding(bits, group, at_most):
    weight, x = fed()
    plain, made = nearest(weight, bits, group), gptq(weight, x.T @ x, bits, group)
    assert error(weight, made, x) < at_most * error(weight, plain, x)
    assert loss(weight, made, x.T @ x) == pytest.approx(error(weight, made, x), rel=1e-2)


def test_gptq_without_correlation_is_rounding():
    weight, _ = fed()
    assert torch.equal(gptq(weight, torch.eye(K), 4, 32).values, nearest(weight, 4, 32).values)


def test_gptq_survives_what_was_never_fed_and_too_few_samples():
    weight, x = fed()
    x[:, 5] = 0
    for rows in (400, 3):
        second = x[:rows].T @ x[:rows]
        made = gptq(weight, second, 4, 32)
        assert bool(made.dequantize().isfinite().all())
        assert loss(weight, made, second) <= loss(weight, nearest(weight, 4, 32), second)


def folded(weight, x):
    maker, reader, inputs = nn.LayerNorm(K, bias=False), nn.Linear(K, 64, bias=False), Inputs(K)
    reader.weight.data.copy_(weight)
    inputs.add(x)
    return Fold(maker, (reader,), inputs)


def test_awq_beats_rounding():
    weight, x = fed()
    fold = folded(weight, x)
    scale = awq(fold, 4, 32)
    made = nearest(weight * scale, 4, 32).dequantize() / scale
    plain = error(weight, nearest(weight, 4, 32), x)
    assert float((x @ (made - weight).T).square().sum()) < 0.6 * plain


def test_smoothquant_beats_bytes_of_both():
    """W8A8: a scale a row of weights, a scale a row of inputs."""
    weight, x = fed()
    scale = smooth(folded(weight, x))
    assert scale.max() / scale.min() > 3

    def product(x, weight):
        return nearest(x, 8, K).dequantize() @ nearest(weight, 8, K).dequantize().T

    wanted = x @ weight.T
    plain, smoothed = product(x, weight), product(x / scale, weight * scale)
    assert float((smoothed - wanted).square().sum()) < 0.5 * float((plain - wanted).square().sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_changes_nothing_that_is_computed(small, family):
    network = Network(small(family))
    wanted = network.logits(TOKENS)
    made = torch.Generator().manual_seed(1)
    for walk in network.walk(TOKENS):
        with watched(walk.layer, HELD.real) as inputs:
            walk.run()
        for fold in folds(network, walk.layer, inputs):
            size = fold.readers[0].in_features
            fold.apply(fold.shared(torch.rand(size, generator=made) * 3 + 0.2))
    torch.testing.assert_close(network.logits(TOKENS), wanted, rtol=1e-3, atol=1e-3)


def test_what_was_watched_is_what_was_folded(small):
    """The sums are kept true when a channel is divided, so that GPTQ could follow AWQ."""
    weight, x = fed()
    fold = folded(weight, x)
    scale = smooth(fold)
    fold.apply(scale)
    fresh = Inputs(K)
    fresh.add(x / scale)
    torch.testing.assert_close(fold.inputs.second, fresh.second, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(fold.inputs.largest, fresh.largest)


def test_filling_is_not_counted():
    layer = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(2, 3, 4)
    real = torch.tensor([[True, True, False], [True, False, False]])
    with watched(layer, real) as inputs:
        layer(x)
    assert inputs["0"].rows == 3
    torch.testing.assert_close(inputs["0"].second, x[real].T @ x[real])
    layer(x)
    assert inputs["0"].rows == 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("method", "bits", "at_most"), [("gptq", 4, 0.9), ("awq", 4, 1.0), ("gptq", 8, 1.0)])
def test_whole_models_lose_less_than_by_rounding(small, family, method, bits, at_most):
    def lost(method):
        network = Network(small(family))
        wanted = network.logits(TOKENS).log_softmax(-1)
        heard = []
        made = calibrate(network, HELD, method, bits, progress=lambda done, total: heard.append((done, total)))
        assert heard == [(1, 2), (2, 2)]
        assert len(made.matrices) == 14
        return divergence(wanted, network.logits(TOKENS).log_softmax(-1))

    assert lost(method) < at_most * lost("rtn")
