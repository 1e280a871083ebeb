"""A model in float32 by transformers' modules, run one decoder layer at a time over sample tokens.

Calibration needs hooks between the projections, which the engine's merged weights do not have. Knows the names that
our decoder families share. Rounds nothing itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from actors.models.checkpoint import Checkpoint
from actors.models.config import read_config, unsupported
from actors.models.family import Family, describe, language_part
from actors.models.weights import prefix_of


class Network:
    """The float model of a folder. Raises ModelInvalid, or ArchitectureUnsupported for a family that is not ours."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM  # noqa: PLC0415  takes a second
        from transformers.utils import logging  # noqa: PLC0415

        config = language_part(read_config(folder))
        family = describe(config)
        if family is None:
            raise unsupported(config, "runs by transformers' modules, which are not quantized")
        self.family: Family = family
        self.folder = folder
        logging.disable_progress_bar()  # the caller shows its own
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.prefix = prefix_of(Checkpoint(folder))
        self.layers: list[nn.Module] = list(self.model.get_decoder().layers)  # not those of a vision tower

    @torch.inference_mode()
    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [B, T, vocab] of `tokens` [B, T]."""
        made: torch.Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return made.float()

    def name(self, index: int, part: str) -> str:
        """What the checkpoint calls the module `part` of layer `index`."""
        return f"{self.prefix}layers.{index}.{part}"

    def walk(self, samples: torch.Tensor) -> Iterator["Walk"]:
        """Layer after layer, each fed with what those before it make of `samples` [B, T], changed as they may be."""
        states, arguments = self._entered(samples)
        for index, layer in enumerate(self.layers):
            step = Walk(index, layer, states, arguments[index])
            yield step
            states = step.run()

    @torch.inference_mode()
    def _entered(self, samples: torch.Tensor) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        """(the first layer's input, the other arguments of each layer): masks and angles as transformers makes them."""
        first: list[torch.Tensor] = []
        heard: list[dict[str, Any]] = []

        def listen(_module: nn.Module, positional: tuple[torch.Tensor, ...], named: dict[str, Any]) -> None:
            named = dict(named)
            states = positional[0] if positional else named.pop("hidden_states")
            heard.append(named)
            if not first:
                first.append(states)

        hooks = [layer.register_forward_pre_hook(listen, with_kwargs=True) for layer in self.layers]
        try:
            self.model(input_ids=samples, use_cache=False, logits_to_keep=1)  # all would be rows times a vocabulary
        finally:
            for hook in hooks:
                hook.remove()
        return first[0], heard


class Walk:
    """One decoder layer and its inputs."""

    def __init__(self, index: int, layer: nn.Module, states: torch.Tensor, arguments: dict[str, Any]) -> None:
        self.index, self.layer, self._states, self._arguments = index, layer, states, arguments

    @torch.inference_mode()
    def run(self) -> torch.Tensor:
        """What the layer makes of its inputs."""
        made = self.layer(self._states, **self._arguments)
        states: torch.Tensor = made[0] if isinstance(made, tuple) else made
        return states
