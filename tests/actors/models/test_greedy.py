"""Greedy tokens equal transformers' `generate`, whatever is batched with what and however prompts are cut."""

import pytest

from actors.models import decoder, load
from actors.models.decoder import Decoder
from cluster.errors import ModelInvalid
from tests.actors.models import architectures
from tests.actors.models.driver import Driver

NEW = architectures.NEW_TOKENS


@pytest.mark.parametrize("name", architectures.ALL)
def test_one_rank(checkpoint, name):
    path = checkpoint(name)
    prompts, answers = architectures.read(path)
    model = load(path, dtype="float32")
    assert isinstance(model, Decoder) == (name in architectures.OWN)
    driver = Driver(model)
    assert driver.generate(prompts, NEW) == answers
    assert any(decodes and chunks for decodes, chunks in driver.steps), "nothing was mixed"


@pytest.mark.parametrize("name", architectures.OWN)
def test_plain_torch(checkpoint, name, monkeypatch):
    monkeypatch.setattr(decoder, "fuse", lambda *_: None)
    path = checkpoint(name)
    prompts, answers = architectures.read(path)
    assert Driver(load(path, dtype="float32"), block_tokens=16, chunk=300, seed=3).generate(prompts, NEW) == answers


@pytest.mark.parametrize("name", architectures.ALL)
def test_two_ranks(checkpoint, pair, name):
    path = checkpoint(name)
    prompts, answers = architectures.read(path)
    first, second = pair.ask("generate", path, prompts, NEW)
    assert first["answers"] == answers
    assert second["answers"] == answers


@pytest.mark.parametrize(
    "name", ["llama", "llama-biases-tied", "qwen3", "gemma2", "mistral", "gpt2", "bloom", "qwen3_moe"]
)
def test_four_ranks(checkpoint, four, name):
    """More ranks than key-value heads, and than many a machine has cores."""
    path = checkpoint(name)
    prompts, answers = architectures.read(path)
    for rank in four.ask("generate", path, prompts, NEW):
        assert rank["answers"] == answers


@pytest.mark.parametrize("ranks", ["pair", "four"])
def test_steps_longer_than_what_crosses_at_a_time(checkpoint, request, monkeypatch, ranks):
    """300 rows of 1,024 float32 values are more than a rank's buffer of 1 MiB."""
    wide = architectures.llama(hidden_size=1024, head_dim=16, num_hidden_layers=2)
    monkeypatch.setitem(architectures.ALL, "llama-wide", wide)
    path = checkpoint("llama-wide")
    prompts, answers = architectures.read(path)
    for rank in request.getfixturevalue(ranks).ask("generate", path, prompts, NEW, 1000):
        assert rank["answers"] == answers


def test_heads_that_four_ranks_cannot_share_are_refused_by_each(checkpoint, four):
    path = checkpoint("llama-odd")
    with pytest.raises(ModelInvalid, match="one of 1, 2, 3, 6"):
        four.ask("generate", path, [[1]], 1)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "qwen3_moe", "phi3"])
def test_two_ranks_hold_half_each(checkpoint, pair, name):
    path = checkpoint(name)
    prompts, _ = architectures.read(path)
    whole = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    for rank in pair.ask("generate", path, prompts[:1], 1):
        assert rank["weight_bytes"] < 0.62 * whole  # norms, routers and learned positions stay whole
