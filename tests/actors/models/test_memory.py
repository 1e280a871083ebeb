"""A rank's peak memory while it loads is its slice and little more."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

SHAPE = {
    "vocab_size": 8000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 10,
    "num_attention_heads": 8, "max_position_embeddings": 128, "dtype": "bfloat16",
}  # fmt: skip
CONFIGS = {"ours": LlamaConfig(**SHAPE), "hosted": GPTNeoXConfig(**SHAPE)}
SIZE = 2
MIB = 2**20


class Silent:
    """A rank whose partner never answers: what it computes is wrong, what it loads is right."""

    rank, size = 1, SIZE

    def all_reduce(self, partial: torch.Tensor) -> torch.Tensor:
        return partial

    def all_gather(self, piece: torch.Tensor) -> torch.Tensor:
        return torch.cat([piece] * SIZE, -1)


def load_in_a_fresh_process(path: Path, answer: Any) -> None:
    import warnings

    warnings.simplefilter("ignore")
    from actors.models import hosted, load
    from actors.models.config import read_config
    from tests.actors.models.ranks import weight_bytes

    hosted.probe.check = lambda model: None
    MODEL_FOR_CAUSAL_LM_MAPPING[type(read_config(path))]  # imports the modules, which are not the slice's
    before = memory("VmRSS")
    model = load(path, dtype="auto", world=Silent())
    answer.send((memory("VmHWM") - before, weight_bytes(model)))


def memory(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


@pytest.mark.parametrize("name", CONFIGS)
def test_peak(tmp_path, name):
    with torch.device("meta"):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(CONFIGS[name])](CONFIGS[name]).bfloat16()
    model.to_empty(device="cpu").save_pretrained(tmp_path, max_shard_size="100MB")
    whole = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=load_in_a_fresh_process, args=(tmp_path, theirs))
    process.start()
    process.join()
    taken, weights = ours.recv()
    assert weights < 1.02 * whole / SIZE
    assert taken < 1.25 * weights + 40 * MIB, f"{taken / MIB:.0f} MiB for {weights / MIB:.0f}"
