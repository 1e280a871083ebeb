"""transformers' own modules without their weights, and the checkpoint tensors that belong in them.

Parameters start on the meta device and are read one by one, cut to this rank's part as they are read. Renamings
and conversions of older checkpoints are transformers' own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key
from transformers.initialization import no_init_weights, no_tie_weights

from actors.models.checkpoint import Checkpoint
from cluster.errors import ModelInvalid

Progress = Callable[[int, int], None]


def build(model_class: Any, config: Any, dtype: torch.dtype) -> Any:
    """The modules of `model_class`: parameters on the meta device, buffers as the modules made them."""
    with no_init_weights(), no_tie_weights(), _parameters_on_meta():
        return model_class._from_config(config, dtype=dtype).eval()


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Whatever parameter a module takes is replaced by one without memory; what it had is never touched."""
    register = nn.Module.register_parameter

    def register_empty(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.to("meta"), requires_grad=False)
        register(self, name, param)

    nn.Module.register_parameter = register_empty  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


class Cut:
    """The part of a parameter that a rank keeps. Here: all of it."""

    def local(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the part."""
        return shape

    def read(self, checkpoint: Checkpoint, name: str, into: torch.Tensor, shape: tuple[int, ...]) -> int:
        """Read the part straight from the file; returns the bytes used."""
        return checkpoint.read(name, into, shape)

    def take(self, whole: torch.Tensor, into: torch.Tensor) -> None:
        """Copy the part of a tensor that had to be converted whole."""
        into.copy_(whole)


WHOLE = Cut()


def fill(
    model: Any, checkpoint: Checkpoint, cuts: dict[str, Cut], device: str, progress: Progress | None = None
) -> None:
    """Read all parameters and saved buffers of `model`; raises ModelInvalid for what is missing or misshapen."""
    _Filling(model, checkpoint, cuts, device, progress).run()


class _Filling:
    def __init__(
        self, model: Any, checkpoint: Checkpoint, cuts: dict[str, Cut], device: str, progress: Progress | None
    ) -> None:
        self.model, self.checkpoint, self.cuts, self.device, self.progress = model, checkpoint, cuts, device, progress
        self.wanted: dict[str, torch.Tensor] = model.state_dict()
        self.missing = set(self.wanted)
        self.total = sum(stored.bytes for stored in checkpoint.tensors.values())
        self.done = 0

    def run(self) -> None:
        for target, transform in self._sources().items():
            if isinstance(transform, str):
                self._read(transform, target)
            else:
                self._convert(transform, target)
        self.model.tie_weights(missing_keys=self.missing, recompute_mapping=False)
        lacking = [name for name, tensor in self.model.named_parameters() if tensor.is_meta]
        if lacking:
            raise ModelInvalid(
                str(self.checkpoint.path), f"the weights lack {', '.join(lacking[:3])}", "fetch all files of the model"
            )
        self._advance(self.total)

    def _sources(self) -> dict[str, Any]:
        """For each target parameter the tensor that holds it, or the conversion that makes it from several."""
        transforms = get_model_conversion_mapping(self.model)
        renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        converters = [one for one in transforms if isinstance(one, WeightConverter)]
        by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
        prefix = self.model.base_model_prefix
        found: dict[str, Any] = {}
        for name in sorted(self.checkpoint.tensors, key=dot_natural_key):
            target, pattern = rename_source_key(name, renamings, converters, prefix, self.wanted)
            if target not in self.wanted and name in self.wanted:
                target, pattern = name, None
            if target not in self.wanted:
                continue
            if pattern is None:
                found.setdefault(target, name)
            else:
                conversion = found.setdefault(target, deepcopy(by_pattern[pattern]))
                conversion.add_tensor(target, name, pattern, self._reader(name))
        return found

    def _reader(self, name: str) -> Callable[[], torch.Tensor]:
        """Reads a tensor whole, when its conversion comes to it."""

        def read() -> torch.Tensor:
            shape = self.checkpoint.shape(name)
            whole = torch.empty(shape, dtype=self.model.dtype)
            self._advance(self.checkpoint.read(name, whole, shape))
            return whole

        return read

    def _read(self, name: str, target: str) -> None:
        shape = tuple(self.wanted[target].shape)
        cut = self.cuts.get(target, WHOLE)
        with self._place(target, cut.local(shape)) as into:
            self._advance(cut.read(self.checkpoint, name, into, shape))

    def _convert(self, transform: Any, target: str) -> None:
        try:
            made = transform.convert(target, model=self.model, config=self.model.config)
        except Exception as error:
            problem = f"{target} cannot be made from what is stored: {error}"
            raise ModelInvalid(str(self.checkpoint.path), problem, "fetch all files of the model") from error
        for name, value in made.items():
            whole = value[0] if isinstance(value, list) else value
            cut = self.cuts.get(name, WHOLE)
            shape = tuple(self.wanted[name].shape)
            if tuple(whole.shape) != shape:
                problem = f"{name} has shape {list(whole.shape)}, config.json asks for {list(shape)}"
                raise ModelInvalid(str(self.checkpoint.path), problem, "take config.json and weights of the same model")
            with self._place(name, cut.local(shape)) as into:
                cut.take(whole, into)

    @contextmanager
    def _place(self, target: str, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
        """New memory for a parameter or the buffer itself; counts as loaded once it is filled."""
        owner, _, name = target.rpartition(".")
        module = self.model.get_submodule(owner)
        if name in module._buffers:
            yield module._buffers[name]
        else:
            made = torch.zeros(shape, dtype=module._parameters[name].dtype, device=self.device)
            yield made
            setattr(module, name, nn.Parameter(made, requires_grad=False))
        self.missing.discard(target)

    def _advance(self, taken: int) -> None:
        self.done += taken
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
