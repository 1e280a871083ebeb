"""transformers' own modules with integer weights: what rounded floats compute, and near what the floats do."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from actors.models import layers, load
from actors.models.autotp import Split
from actors.models.matrices import BITS
from actors.models.parallel import Alone
from actors.models.rounded import ROUTERS, round_linears
from actors.quantization.rounding import group_for, nearest
from cluster.errors import ArchitectureUnsupported
from tests.actors.models import architectures
from tests.actors.quantization.test_loading import FAR, apart, logits

KINDS = ("gpt2", "gpt_neox", "phi3", "mixtral", "starcoder2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}
    return lambda kind: made.setdefault(kind, architectures.make(kind, tmp_path_factory.mktemp(kind)))


def float_model(path, bits):
    """Floats that are what `bits` of them would be."""
    model = load(path, dtype="float32")
    tied = model.module.get_input_embeddings().weight
    count = 0
    for name, module in model.module.named_modules():
        if type(module) in (nn.Linear, Conv1D) and module.weight is not tied and name.split(".")[-1] not in ROUTERS:
            weight = module.weight.T if isinstance(module, Conv1D) else module.weight
            made = nearest(weight, *group_for(bits, weight.shape[1])).dequantize()
            module.weight.data = made.T.contiguous() if isinstance(module, Conv1D) else made
            count += 1
    assert count >= 6
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", BITS)
def test_it_computes_what_rounded_floats_do(folder, kind, to, monkeypatch):
    monkeypatch.setattr(layers, "packed", lambda weight: weight)
    found = logits(load(folder(kind), dtype="float32", quantization=to))
    torch.testing.assert_close(found, logits(float_model(folder(kind), BITS[to])), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", BITS)
def test_kernels_compute_nearly_what_the_floats_do(folder, kind, to):
    found = load(folder(kind), dtype="float32", quantization=to)
    assert 1e-3 < apart(logits(found), logits(load(folder(kind), dtype="float32"))) < FAR[to]
    held = [type(one).__name__ for one in found.module.modules() if getattr(one, "weight", None) is not None
            and type(one) in (nn.Linear, Conv1D) and one.weight.numel() == 0]  # fmt: skip
    assert len(held) >= 6, "the floats are gone"


def test_what_is_not_done_is_refused(folder):
    with pytest.raises(ArchitectureUnsupported, match="fp8"):
        load(folder("gpt2"), dtype="float32", quantization="fp8")


def test_ranks_that_hold_columns_add_up_and_add_the_bias_once():
    torch.manual_seed(0)
    whole, x = nn.Linear(64, 48), torch.randn(3, 5, 64)
    parts = []
    for rank in range(2):
        cut = slice(32 * rank, 32 * rank + 32)
        mine = nn.Sequential(nn.Linear(32, 48))
        mine[0].weight.data, mine[0].bias.data = whole.weight.data[:, cut].clone(), whole.bias.data
        round_linears(mine, 8)
        Split(Alone(), rows=[mine[0]]).apply()
        parts.append(mine(x[..., cut]))
    with torch.no_grad():
        torch.testing.assert_close(sum(parts) - whole.bias, whole(x), rtol=0, atol=0.03)
