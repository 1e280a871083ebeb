import json

import pytest
import torch
from safetensors.torch import save_file

from actors.registry.registry import Registry


def write_model(folder, weights, **config):
    """A folder that looks like a model; what is not given stays as it is."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}, indent=2))
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {}, "merges": []}}')
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {"embed": torch.randn(1200, 1024), "norm": torch.ones(64), "none": torch.empty(0, 4)}


@pytest.fixture
def model(tmp_path, weights):
    return write_model(tmp_path / "model", weights, hidden_size=1024)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry", clock=lambda: 1_700_000_000.0)
