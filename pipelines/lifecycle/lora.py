"""Low-rank adapters (arXiv:2106.09685): put into a network, and written as PEFT writes them.

Knows networks of torch. Knows nothing of what they are trained on.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from cluster.errors import InvalidRequest
from pipelines.lifecycle.declared import Lora

HEADS = ("lm_head", "embed_out")  # what PEFT's `all-linear` leaves out


class LowRank(nn.Module):
    """A linear layer that stays as it is, and what is learnt beside it: scale x up x down."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        weight = layer.weight
        self.down = nn.Parameter(weight.new_empty(rank, layer.in_features))
        self.up = nn.Parameter(weight.new_zeros(layer.out_features, rank))  # so that it begins as the layer is
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.scale * ((x @ self.down.T) @ self.up.T)
        return out


def adapt(network: nn.Module, lora: Lora) -> list[str]:
    """Freeze `network` but for adapters in the layers that are meant; their names. Raises InvalidRequest for none."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    chosen = [name for name, layer in linear(network) if _meant(name, lora.targets)]
    if not chosen:
        there = sorted({name.rpartition(".")[2] for name, _ in linear(network)})
        raise InvalidRequest("train.lora.targets", ", ".join(lora.targets), f"it has {', '.join(there)}")
    for name in chosen:
        parent, _, leaf = name.rpartition(".")
        holder = network.get_submodule(parent)
        layer = getattr(holder, leaf)
        setattr(holder, leaf, LowRank(layer, lora.rank, lora.alpha / lora.rank))
    return chosen


def linear(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers by name."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            yield name, layer


def save(network: nn.Module, lora: Lora, folder: Path) -> None:
    """adapter_model.safetensors and adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, targets = {}, set()
    for name, layer in network.named_modules():
        if isinstance(layer, LowRank):
            targets.add(name.rpartition(".")[2])
            stem = f"base_model.model.{name}"
            tensors[f"{stem}.lora_A.weight"] = layer.down.detach().float().cpu().contiguous()
            tensors[f"{stem}.lora_B.weight"] = layer.up.detach().float().cpu().contiguous()
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": 0.0,
        "target_modules": sorted(targets), "bias": "none", "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _meant(name: str, targets: tuple[str, ...]) -> bool:
    leaf = name.rpartition(".")[2]
    if targets:
        return any(name == target or name.endswith("." + target) for target in targets)
    return leaf not in HEADS
