"""Fill the merged weights of our decoders: each rank reads its own slices and nothing else.

Knows the tensor names that Llama and its kin share, and how they are cut over ranks. Where a matrix comes from, stored
in integers or rounded as it is read, is known to `Matrices`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from actors.models import split
from actors.models.checkpoint import Checkpoint, Listed
from actors.models.family import Family
from actors.models.kernels.quantized import PackedWeight, packed
from actors.models.layers import AnyLinear, Linear, QuantizedLinear, RMSNorm
from actors.models.matrices import Matrices
from actors.models.memory import empty
from actors.models.parallel import Alone, World
from actors.models.quantized import QuantizedWeight, join
from actors.models.split import Share
from actors.quantization.declared import declared
from cluster.errors import ModelInvalid

Progress = Callable[[int, int], None]
Embedding = torch.Tensor | PackedWeight | QuantizedWeight
EMBEDDING = "embed_tokens"
HEADS = ("lm_head", "language_model.lm_head")


@dataclass(slots=True)
class LayerWeights:
    """One decoder layer. The last two norms are there in families that norm what a block adds."""

    input_norm: RMSNorm
    qkv: AnyLinear
    output: AnyLinear
    mlp_norm: RMSNorm
    gate_up: AnyLinear
    down: AnyLinear
    query_norm: RMSNorm | None
    key_norm: RMSNorm | None
    attention_out_norm: RMSNorm | None
    mlp_out_norm: RMSNorm | None


class Loader:
    """Reads one rank's part of a checkpoint into merged parameters."""

    def __init__(
        self,
        family: Family,
        checkpoint: Checkpoint,
        world: World,
        dtype: torch.dtype,
        device: str,
        progress: Progress | None = None,
        quantization: str | None = None,
    ) -> None:
        self.family, self.checkpoint, self.dtype, self.device = family, checkpoint, dtype, device
        self.matrices = Matrices(checkpoint, quantization, self._count)
        self.prefix = prefix_of(checkpoint)
        self.queries, self.keys = split.heads(family.heads, family.kv_heads, world.rank, world.size)
        # what shares a scale stays together: widths are dealt out by whole groups
        downs = (f"{self.prefix}layers.{index}.mlp.down_proj" for index in range(family.layers))
        group = math.lcm(*{self.matrices.group(down, family.intermediate) for down in downs})
        groups = split.even(family.intermediate // group, world.rank, world.size)
        self.width = Share(groups.start * group, groups.stop * group, family.intermediate)
        self.vocab = split.padded(family.vocab, world.rank, world.size)
        self.vocab_rows = -(-family.vocab // world.size)
        self.head_name = next((name for name in HEADS if self._has(name)), HEADS[0])
        self._progress, self._done = progress, 0
        self._total = sum(t.bytes for t in checkpoint.tensors.values()) // world.size

    def embedding(self) -> Embedding:
        """[vocab_rows, hidden]: this rank's rows, zeros after the last."""
        name = self.prefix + EMBEDDING
        return self._vocab_rows(self.head_name if self.family.tied and not self._has(name) else name)

    def head(self, embedding: Embedding) -> AnyLinear:
        """The output projection; the embedding itself where they are tied."""
        if self.family.tied and (not self._has(self.head_name) or not self._has(self.prefix + EMBEDDING)):
            return _linear(embedding)
        own = self._vocab_rows(self.head_name)
        # as transformers does: a config that says tied is believed only if both tensors agree
        return _linear(embedding if self.family.tied and _equal(own, embedding) else own)

    def final_norm(self) -> RMSNorm:
        return self._norm(self.prefix + "norm.weight", self.family.hidden)

    def layer(self, index: int) -> LayerWeights:
        family, at = self.family, f"{self.prefix}layers.{index}."
        sandwich = family.sandwich
        return LayerWeights(
            input_norm=self._norm(at + "input_layernorm.weight", family.hidden),
            qkv=self._qkv(at + "self_attn."),
            output=self._row(at + "self_attn.o_proj", self.queries, family.head_dim, family.output_bias),
            mlp_norm=self._norm(
                at + ("pre_feedforward_layernorm.weight" if sandwich else "post_attention_layernorm.weight"),
                family.hidden,
            ),
            gate_up=self._column(
                [(at + "mlp.gate_proj", self.width), (at + "mlp.up_proj", self.width)], 1, family.mlp_bias
            ),
            down=self._row(at + "mlp.down_proj", self.width, 1, family.mlp_bias),
            query_norm=self._norm(at + "self_attn.q_norm.weight", family.head_dim) if family.qk_norm else None,
            key_norm=self._norm(at + "self_attn.k_norm.weight", family.head_dim) if family.qk_norm else None,
            attention_out_norm=self._norm(at + "post_attention_layernorm.weight", family.hidden) if sandwich else None,
            mlp_out_norm=self._norm(at + "post_feedforward_layernorm.weight", family.hidden) if sandwich else None,
        )

    def finish(self) -> None:
        """Say that all is read: a rank's share of the bytes was only an estimate."""
        if self._progress is not None:
            self._progress(self._total, self._total)

    def _qkv(self, at: str) -> AnyLinear:
        parts = [(at + "q_proj", self.queries), (at + "k_proj", self.keys), (at + "v_proj", self.keys)]
        return self._column(parts, self.family.head_dim, self.family.qkv_bias)

    def _column(self, parts: list[tuple[str, Share]], unit: int, bias: bool) -> AnyLinear:
        """Projections cut by output rows, merged one under the other."""
        hidden = self.family.hidden
        offsets = self._empty(sum(share.count for _, share in parts) * unit) if bias else None
        at = 0
        for name, share in parts:
            until = at + share.count * unit
            if offsets is not None:
                self._read(name + ".bias", offsets[at:until], (share.total * unit,), first=share.scaled(unit))
            at = until
        found = [self.matrices.read(name, (s.total * unit, hidden), first=s.scaled(unit)) for name, s in parts]
        small = [one for one in found if one is not None]
        if len(small) == len(parts):
            return self._quantized(join(small, f"{self.matrices.checkpoint.path}: {parts[0][0]}"), offsets)
        weight, at = self._empty(at, hidden), 0
        for (name, share), one in zip(parts, found, strict=True):
            until = at + share.count * unit
            if one is not None:  # beside one that stayed in floats
                weight[at:until] = one.dequantize()
            else:
                self._floats(name, weight[at:until], (share.total * unit, hidden), first=share.scaled(unit))
            at = until
        return Linear(weight, offsets)

    def _row(self, name: str, share: Share, unit: int, bias: bool) -> AnyLinear:
        """A projection cut by input columns; its bias is whole and is added once, after the sum over ranks."""
        shape, cut = (self.family.hidden, share.total * unit), share.scaled(unit)
        offsets = self._whole(name + ".bias", self.family.hidden) if bias else None
        small = self.matrices.read(name, shape, last=cut)
        if small is not None:
            return self._quantized(small, offsets)
        weight = self._empty(self.family.hidden, share.count * unit)
        self._floats(name, weight, shape, last=cut)
        return Linear(weight, offsets)

    def _norm(self, name: str, width: int) -> RMSNorm:
        weight = self._whole(name, width)
        return RMSNorm(weight.float() + 1.0 if self.family.norm_offset else weight, self.family.eps)

    def _whole(self, name: str, width: int) -> torch.Tensor:
        made = self._empty(width)
        self._read(name, made, (width,))
        return made

    def _vocab_rows(self, name: str) -> Embedding:
        shape, cut = (self.family.vocab, self.family.hidden), self.vocab.scaled(1)
        small = self.matrices.read(name, shape, first=cut)
        if small is not None:
            return packed(self._on_device(small.padded(self.vocab_rows)))
        made = self._empty(self.vocab_rows, self.family.hidden)
        made[self.vocab.count :] = 0
        # fp8 is for projections, as in the folders that others write
        self._count(self.matrices.floats(name, made[: self.vocab.count], shape, cut, exact=True))
        return made

    def _quantized(self, weight: QuantizedWeight, bias: torch.Tensor | None) -> QuantizedLinear:
        return QuantizedLinear(self._on_device(weight), bias)

    def _on_device(self, weight: QuantizedWeight) -> QuantizedWeight:
        return weight if self.device == "cpu" else weight.to(self.device)

    def _has(self, layer: str) -> bool:
        return self.matrices.has(layer)

    def _floats(
        self,
        layer: str,
        into: torch.Tensor,
        shape: tuple[int, int],
        first: slice | None = None,
        last: slice | None = None,
    ) -> None:
        self._count(self.matrices.floats(layer, into, shape, first, last))

    def _empty(self, *shape: int) -> torch.Tensor:
        return empty(shape, self.dtype, self.device)

    def _read(self, name: str, into: torch.Tensor, shape: tuple[int, ...], first: slice | None = None) -> None:
        self._count(self.checkpoint.read(name, into, shape, first))

    def _count(self, taken: int) -> None:
        self._done += taken
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def check(family: Family, checkpoint: Listed) -> None:
    """Raises ModelInvalid for weights that lack what `family` needs, or have it in another shape. Reads no tensor.

    Of a folder that is quantized already only its load says that.
    """
    if declared(checkpoint.path) is not None:
        return
    loader = Loader(family, checkpoint, Alone(), torch.bfloat16, "meta")
    loader.embedding()
    loader.final_norm()
    for index in range(family.layers):
        loader.layer(index)
    if not family.tied:
        loader.head(torch.empty(0))


def _linear(weight: Embedding) -> AnyLinear:
    return Linear(weight) if isinstance(weight, torch.Tensor) else QuantizedLinear(weight, None)


def _equal(left: Embedding, right: Embedding) -> bool:
    if isinstance(left, PackedWeight) and isinstance(right, PackedWeight):
        return left.bits == right.bits and torch.equal(left.memory, right.memory)
    if isinstance(left, QuantizedWeight) and isinstance(right, QuantizedWeight):
        return torch.equal(left.values, right.values) and torch.equal(left.scales, right.scales)
    return isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor) and torch.equal(left, right)


def prefix_of(checkpoint: Checkpoint) -> str:
    """What stands before `layers.0`: `model.` in a causal checkpoint, nothing in that of a bare decoder."""
    for prefix in ("model.", "", "model.language_model.", "language_model.model."):
        if prefix + "norm.weight" in checkpoint:
            return prefix
    raise ModelInvalid(
        str(checkpoint.path), "the weights lack model.norm.weight", "take config.json and weights of the same model"
    )
