"""Where a matrix of a checkpoint comes from: floats, integers that the folder holds, or integers made while reading.

Owns the one decision of what is rounded. Knows no layer and no rank: only names, shapes and slices.
"""

from collections.abc import Callable, Iterator

import torch

from actors.models.checkpoint import Checkpoint
from actors.models.quantized import QuantizedWeight
from actors.quantization.declared import declared
from actors.quantization.rounding import group_for, rounded_rows, to_float8
from actors.quantization.stored import StoredMatrices
from cluster.errors import ModelInvalid

BITS = {"int8": 8, "int4": 4}
WEIGHTS = (".weight", ".weight_packed", ".qweight")


class Matrices:
    """The matrices of one folder. Raises ModelInvalid for a folder quantized in a way that is not read.

    `quantization` rounds what is stored as floats; `count` hears the bytes that were read for it.
    """

    def __init__(self, checkpoint: Checkpoint, quantization: str | None, count: Callable[[int], None]) -> None:
        self.checkpoint, self.quantization, self._count = checkpoint, quantization, count
        found = declared(checkpoint.path)
        self._stored = None if found is None else StoredMatrices(checkpoint, found)
        if quantization is not None and any(map(self._is_rounded, checkpoint.tensors)):
            raise ModelInvalid(
                str(checkpoint.path), f"is quantized already and is asked to be rounded to {quantization}",
                "leave quantization out, or take the float weights",
            )  # fmt: skip

    def _is_rounded(self, name: str) -> bool:
        said = self._stored is not None and self.checkpoint.tensors[name].dtype == "I8"  # else it is not read at all
        return (said and name.endswith(WEIGHTS[0])) or name.endswith(WEIGHTS[1:])

    def has(self, layer: str) -> bool:
        """Whether there is a weight of this layer, in whatever form."""
        return any(layer + end in self.checkpoint for end in WEIGHTS)

    def group(self, layer: str, columns: int) -> int:
        """How many columns of `layer` must stay together, because they share a scale; 1 if any cut will do."""
        if self._stored is not None and (found := self._stored.group(layer, columns)) is not None:
            return found
        if self.quantization not in BITS:
            return 1
        _, group = group_for(BITS[self.quantization], columns)
        return group if group < columns else 1

    def read(
        self, layer: str, shape: tuple[int, int], first: slice | None = None, last: slice | None = None
    ) -> QuantizedWeight | None:
        """Rows `first` and columns `last` of the matrix in integers; None where it is to stay in floats."""
        if self._stored is not None and (found := self._stored.read(layer, shape, first, last)) is not None:
            self._count(found.bytes)
            return found
        if self.quantization not in BITS:
            return None
        bits, group = group_for(BITS[self.quantization], shape[1])
        start, stop, _ = (first or slice(None)).indices(shape[0])
        made = rounded_rows(self._windows(layer, shape, start, stop), (stop - start, shape[1]), bits, group, last)
        self._count(made.values.numel() * self.checkpoint.bytes_each(layer + ".weight"))
        return made

    def floats(
        self,
        layer: str,
        into: torch.Tensor,
        shape: tuple[int, int],
        first: slice | None = None,
        last: slice | None = None,
        *,
        exact: bool = False,
    ) -> int:
        """Copy the matrix, cut likewise, into `into`; returns the bytes read. `exact`: never by way of fp8."""
        name = layer + ".weight"
        rounds = self.quantization == "fp8" and not exact and not self._is_float8(name)
        if not rounds and not self._is_float8(name):
            return self.checkpoint.read(name, into, shape, first, last)
        cut = slice(None) if last is None else last
        start, stop, _ = (first or slice(None)).indices(shape[0])
        for row, window in self._windows(layer, shape, start, stop):
            rows = window
            if rounds:
                small, scale = to_float8(window)
                rows = small.float() * scale
            into[row - start : row - start + len(rows)] = rows[:, cut]
        return into.numel() * self.checkpoint.bytes_each(name)

    def _windows(self, layer: str, shape: tuple[int, int], start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, float rows): the whole rows `start:stop`, some at a time."""
        name = layer + ".weight"
        for row, window in self.checkpoint.rows(name, shape, slice(start, stop)):
            if self._stored is not None and self._is_float8(name):
                yield row, self._stored.floats(layer, shape, (row, row + len(window)))
            elif window.is_floating_point() and not self._is_float8(name):
                yield row, window
            else:
                raise ModelInvalid(
                    str(self.checkpoint.path), f"{name} is {window.dtype} and config.json does not say how to read it",
                    "take the config.json that came with the weights",
                )  # fmt: skip

    def _is_float8(self, name: str) -> bool:
        stored = self.checkpoint.tensors.get(name)
        return stored is not None and stored.dtype.startswith("F8")
