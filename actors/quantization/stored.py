"""Read slices of matrices that a folder holds quantized: what a rank needs and no more.

Knows the tensors that compressed-tensors, GPTQ, AWQ and fp8 keep for a matrix. Knows nothing of layers or kernels.
"""

import torch

from actors.models.checkpoint import Checkpoint
from actors.models.quantized import QuantizedWeight, groups_of
from actors.quantization.declared import WORKS, Declared
from actors.quantization.packing import AWQ_ORDER, unpack
from actors.quantization.sound import check_floats, check_kind, check_method, check_scales
from cluster.errors import ModelInvalid

Range = tuple[int, int]


class StoredMatrices:
    """The quantized matrices of one checkpoint, by the name of the layer that they belong to."""

    def __init__(self, checkpoint: Checkpoint, declared: Declared) -> None:
        self.checkpoint, self.declared = checkpoint, declared

    def group(self, layer: str, columns: int) -> int | None:
        """Columns that share a scale in `layer`; None where all of them do or where it is not quantized."""
        for name, along in ((".weight_scale", 1), (".scales", 0)):
            if layer + name in self.checkpoint:
                shape = self.checkpoint.shape(layer + name)
                many = shape[along] if len(shape) == 2 else 1
                return columns // many if many > 1 and columns % many == 0 else None  # `read` says what is wrong
        return None

    def read(
        self, layer: str, shape: tuple[int, int], first: slice | None = None, last: slice | None = None
    ) -> QuantizedWeight | None:
        """Rows `first` and columns `last` of `layer`, None if its weight is stored as floats (fp8 among them).

        Raises ModelInvalid where the tensors do not fit `shape`, or where a cut goes through a group.
        """
        rows = (first or slice(None)).indices(shape[0])[:2]
        columns = (last or slice(None)).indices(shape[1])[:2]
        if layer + ".weight_packed" in self.checkpoint:
            check_method(self.checkpoint, self.declared, layer, ".weight_packed")
            return self._packed(layer, shape, rows, columns)
        if layer + ".qweight" in self.checkpoint:
            check_method(self.checkpoint, self.declared, layer, ".qweight")
            read = self._awq if self.declared.method == "awq" else self._gptq
            return read(layer, shape, rows, columns)
        weight = self.checkpoint.tensors.get(layer + ".weight")
        if weight is None or weight.dtype != "I8":
            return None
        check_method(self.checkpoint, self.declared, layer, ".weight")
        return self._integers(layer, shape, rows, columns)

    def floats(self, layer: str, shape: tuple[int, int], rows: Range) -> torch.Tensor:
        """float32: whole rows of an fp8 matrix, times their scales (one, one a row, or one a block)."""
        weight = self.checkpoint.piece(layer + ".weight", shape, slice(*rows)).float()
        inverse = layer + ".weight_scale_inv"
        name = inverse if inverse in self.checkpoint else layer + ".weight_scale"
        if name not in self.checkpoint:
            file = self.checkpoint.tensors[layer + ".weight"].file
            raise ModelInvalid(
                str(file), f"{layer}.weight is fp8 and {name} is missing", "fetch all files of the model"
            )
        check_floats(self.checkpoint, name)
        scale = self._whole(name).float()
        if self.declared.block is not None and scale.numel() > 1:
            height, width = self.declared.block
            if scale.shape != (-(-shape[0] // height), -(-shape[1] // width)):
                raise self._wrong(name, f"has shape {list(scale.shape)} for blocks of {height} x {width}")
            scale = scale[torch.arange(*rows) // height][:, torch.arange(shape[1]) // width]
        elif scale.dim() and scale.numel() == scale.shape[0] == shape[0] > 1:
            scale = scale.view(shape[0], -1)[slice(*rows)]
        elif scale.numel() != 1:
            raise self._wrong(name, f"has shape {list(scale.shape)} for a weight of {list(shape)}")
        scale = scale.expand(weight.shape)
        check_scales(self.checkpoint, name, scale, lambda: weight != 0, signed=False)
        return weight * scale

    def _packed(self, layer: str, shape: tuple[int, int], rows: Range, columns: Range) -> QuantizedWeight:
        """compressed-tensors' pack-quantized: words along a row, zeros along a column."""
        words = self.checkpoint.shape(layer + ".weight_packed")
        bits = next((b for b in (4, 8) if words == (shape[0], -(-shape[1] * b // 32))), None)
        if bits is None:
            raise self._wrong(layer + ".weight_packed", f"has shape {list(words)} for a weight of {list(shape)}")
        self._in_order(layer + ".weight_g_idx", shape[1])
        cut, trim = _aligned(columns, 32 // bits)
        packed = self._words(layer + ".weight_packed", words, slice(*rows), cut)
        values = unpack(packed, bits)[:, trim]
        scales, zeros = self._scales(layer, shape, rows), self._zeros(layer, bits, rows)
        return self._made(layer, bits, values, scales, zeros, (columns, shape[1]))

    def _integers(self, layer: str, shape: tuple[int, int], rows: Range, columns: Range) -> QuantizedWeight:
        """compressed-tensors' int-quantized: a byte a value."""
        values = self.checkpoint.piece(layer + ".weight", shape, slice(*rows), slice(*columns))
        scales, zeros = self._scales(layer, shape, rows), self._zeros(layer, 8, rows)
        return self._made(layer, 8, values, scales, zeros, (columns, shape[1]))

    def _scales(self, layer: str, shape: tuple[int, int], rows: Range) -> torch.Tensor:
        name = layer + ".weight_scale"
        stored = self.checkpoint.shape(name)
        check_floats(self.checkpoint, name)
        if stored in ((), (1,)):  # one for the whole matrix
            return self._whole(name).float().view(1, 1).repeat(rows[1] - rows[0], 1)
        if len(stored) > 2 or stored[0] != shape[0]:
            raise self._wrong(name, f"has shape {list(stored)} for a weight of {list(shape)}")
        return self.checkpoint.piece(name, stored, slice(*rows)).float().view(rows[1] - rows[0], -1)

    def _whole(self, name: str) -> torch.Tensor:
        """All of a tensor, which may be a single number without a shape."""
        if self.checkpoint.shape(name):
            return self.checkpoint.piece(name)
        single = torch.empty(())
        self.checkpoint.read(name, single, ())
        return single

    def _zeros(self, layer: str, bits: int, rows: Range) -> torch.Tensor | None:
        name = layer + ".weight_zero_point"
        if name not in self.checkpoint:
            return None
        if self.checkpoint.tensors[name].dtype != "I32":
            zeros = self.checkpoint.piece(name).to(torch.int8)
            return zeros.view(len(zeros), -1)[slice(*rows)] if zeros.numel() > 1 else zeros.expand(rows[1] - rows[0], 1)
        cut, trim = _aligned(rows, 32 // bits)
        return unpack(self._words(name, None, cut, None).T.contiguous(), bits)[:, trim].T.contiguous()

    def _gptq(self, layer: str, shape: tuple[int, int], rows: Range, columns: Range) -> QuantizedWeight:
        """Words along the inputs, everything transposed."""
        words = self.checkpoint.shape(layer + ".qweight")
        bits = next((b for b in (4, 8) if words == (shape[1] * b // 32, shape[0])), None)
        if bits is None:
            raise self._wrong(layer + ".qweight", f"has shape {list(words)} for a weight of {list(shape)}")
        self._in_order(layer + ".g_idx", shape[1])
        cut, trim = _aligned(columns, 32 // bits)
        packed = self._words(layer + ".qweight", words, cut, slice(*rows))
        values = unpack(packed.T.contiguous(), bits)[:, trim]
        zeros = self._transposed_zeros(layer, bits, rows, None, self.declared.zero_offset)
        scales = self._transposed_scales(layer, shape, rows)
        return self._made(layer, bits, values, scales, zeros, (columns, shape[1]))

    def _awq(self, layer: str, shape: tuple[int, int], rows: Range, columns: Range) -> QuantizedWeight:
        """Words along the outputs, in AWQ's order, everything transposed."""
        words = (shape[1], shape[0] // 8)
        cut, trim = _aligned(rows, 8)
        packed = self._words(layer + ".qweight", words, slice(*columns), cut)
        values = unpack(packed, 4, AWQ_ORDER)[:, trim].T.contiguous()
        zeros = self._transposed_zeros(layer, 4, rows, AWQ_ORDER, 0)
        scales = self._transposed_scales(layer, shape, rows)
        return self._made(layer, 4, values, scales, zeros, (columns, shape[1]))

    def _transposed_scales(self, layer: str, shape: tuple[int, int], rows: Range) -> torch.Tensor:
        name = layer + ".scales"
        stored = self.checkpoint.shape(name)
        check_floats(self.checkpoint, name)
        if len(stored) != 2 or stored[1] != shape[0]:
            raise self._wrong(name, f"has shape {list(stored)} for a weight of {list(shape)}")
        return self.checkpoint.piece(name, stored, None, slice(*rows)).float().T.contiguous()

    def _transposed_zeros(
        self, layer: str, bits: int, rows: Range, order: tuple[int, ...] | None, offset: int
    ) -> torch.Tensor | None:
        if layer + ".qzeros" not in self.checkpoint:
            return None
        cut, trim = _aligned(rows, 32 // bits)
        stored = unpack(self._words(layer + ".qzeros", None, None, cut), bits, order)[:, trim].T
        middle = 1 << (bits - 1)
        zeros = (stored.int() + middle + offset) % (2 * middle) - middle  # AutoGPTQ lets the largest wrap around
        return zeros.to(torch.int8).contiguous()

    def _words(self, name: str, shape: tuple[int, ...] | None, first: slice | None, last: slice | None) -> torch.Tensor:
        words = self.checkpoint.piece(name, shape, first, last)
        if words.dtype != torch.int32 or words.dim() != 2:
            raise self._wrong(name, f"is {words.dtype} {list(words.shape)} where words of 32 bits are packed")
        return words

    def _in_order(self, name: str, columns: int) -> None:
        """Refuse GPTQ's act-order, where the columns of a group lie anywhere."""
        if name not in self.checkpoint:
            return
        index = self.checkpoint.piece(name, (columns,)).long()
        groups = int(index.max()) + 1
        if columns % groups and bool((index.diff() >= 0).all()):
            raise self._wrong(name, f"makes {groups} groups that do not divide {columns} columns")
        if not torch.equal(index, torch.arange(columns) * groups // columns):
            raise ModelInvalid(
                str(self.checkpoint.path), f"{name} spreads the columns of a group (act-order, desc_act)",
                "quantize the model again with desc_act=False, or take its float weights",
            )  # fmt: skip

    def _made(
        self,
        layer: str,
        bits: int,
        values: torch.Tensor,
        scales: torch.Tensor,
        zeros: torch.Tensor | None,
        kept: tuple[Range, int],
    ) -> QuantizedWeight:
        """The slice, once its rows are cut: with the groups that its columns, `kept` of so many, are made of."""
        (columns, width), rows, groups = kept, values.shape[0], scales.shape[1]
        if len(scales) != rows or width % groups or (zeros is not None and zeros.shape != scales.shape):
            raise self._wrong(layer, f"its {width} columns have scales {list(scales.shape)}")
        check_kind(self.checkpoint, self.declared, layer, bits, width // groups, width)
        if zeros is not None and not zeros.any():
            zeros = None
        if groups == 1:
            return self._sound(layer, QuantizedWeight(bits, values.shape[1], values, scales, zeros))
        start, stop = groups_of(*columns, width // groups, layer)
        zeros = None if zeros is None else zeros[:, start:stop].contiguous()
        scales = scales[:, start:stop].contiguous()
        return self._sound(layer, QuantizedWeight(bits, width // groups, values.contiguous(), scales, zeros))

    def _sound(self, layer: str, made: QuantizedWeight) -> QuantizedWeight:
        """What was made, unless its scales make nonsense of it."""
        signed = layer + ".scales" in self.checkpoint
        name = layer + (".scales" if signed else ".weight_scale")
        check_scales(self.checkpoint, name, made.scales, lambda: made.used, signed=signed)
        return made

    def _wrong(self, name: str, problem: str) -> ModelInvalid:
        return ModelInvalid(str(self.checkpoint.path), f"{name} {problem}", WORKS)


def _aligned(part: Range, per: int) -> tuple[slice, slice]:
    """(the words that hold `part`, where `part` lies in what they unpack to)."""
    start = part[0] // per
    return slice(start, -(-part[1] // per)), slice(part[0] - start * per, part[1] - start * per)
