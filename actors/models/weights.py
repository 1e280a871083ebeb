"""Fill the merged weights of our decoders: each rank reads its own slices and nothing else.

Knows the tensor names that Llama and its kin share, and how they are cut over ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from actors.models import split
from actors.models.checkpoint import Checkpoint
from actors.models.family import Family
from actors.models.layers import Linear, RMSNorm
from actors.models.parallel import World
from actors.models.split import Share
from cluster.errors import ModelInvalid

Progress = Callable[[int, int], None]
EMBEDDING = "embed_tokens.weight"
HEADS = ("lm_head.weight", "language_model.lm_head.weight")


@dataclass(slots=True)
class LayerWeights:
    """One decoder layer. The last two norms are there in families that norm what a block adds."""

    input_norm: RMSNorm
    qkv: Linear
    output: Linear
    mlp_norm: RMSNorm
    gate_up: Linear
    down: Linear
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
    ) -> None:
        self.family, self.checkpoint, self.dtype, self.device = family, checkpoint, dtype, device
        self.queries, self.keys = split.heads(family.heads, family.kv_heads, world.rank, world.size)
        self.width = split.even(family.intermediate, world.rank, world.size)
        self.vocab = split.padded(family.vocab, world.rank, world.size)
        self.vocab_rows = -(-family.vocab // world.size)
        self.prefix = _prefix(checkpoint)
        self.head_name = next((name for name in HEADS if name in checkpoint), HEADS[0])
        self._progress, self._done = progress, 0
        self._total = sum(t.bytes for t in checkpoint.tensors.values()) // world.size

    def embedding(self) -> torch.Tensor:
        """[vocab_rows, hidden]: this rank's rows, zeros after the last."""
        name = self.prefix + EMBEDDING
        return self._vocab_rows(self.head_name if self.family.tied and name not in self.checkpoint else name)

    def head(self, embedding: torch.Tensor) -> Linear:
        """The output projection; the embedding itself where they are tied."""
        if self.family.tied and (
            self.head_name not in self.checkpoint or self.prefix + EMBEDDING not in self.checkpoint
        ):
            return Linear(embedding)
        own = self._vocab_rows(self.head_name)
        # as transformers does: a config that says tied is believed only if both tensors agree
        return Linear(embedding if self.family.tied and torch.equal(own, embedding) else own)

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

    def _qkv(self, at: str) -> Linear:
        parts = [(at + "q_proj", self.queries), (at + "k_proj", self.keys), (at + "v_proj", self.keys)]
        return self._column(parts, self.family.head_dim, self.family.qkv_bias)

    def _column(self, parts: list[tuple[str, Share]], unit: int, bias: bool) -> Linear:
        """Projections cut by output rows, merged one under the other."""
        rows = sum(share.count for _, share in parts) * unit
        weight = self._empty(rows, self.family.hidden)
        offsets = self._empty(rows) if bias else None
        at = 0
        for name, share in parts:
            until = at + share.count * unit
            cut, whole = share.scaled(unit), share.total * unit
            self._read(name + ".weight", weight[at:until], (whole, self.family.hidden), first=cut)
            if offsets is not None:
                self._read(name + ".bias", offsets[at:until], (whole,), first=cut)
            at = until
        return Linear(weight, offsets)

    def _row(self, name: str, share: Share, unit: int, bias: bool) -> Linear:
        """A projection cut by input columns; its bias is whole and is added once, after the sum over ranks."""
        weight = self._empty(self.family.hidden, share.count * unit)
        shape = (self.family.hidden, share.total * unit)
        self._read(name + ".weight", weight, shape, last=share.scaled(unit))
        return Linear(weight, self._whole(name + ".bias", self.family.hidden) if bias else None)

    def _norm(self, name: str, width: int) -> RMSNorm:
        weight = self._whole(name, width)
        return RMSNorm(weight.float() + 1.0 if self.family.norm_offset else weight, self.family.eps)

    def _whole(self, name: str, width: int) -> torch.Tensor:
        made = self._empty(width)
        self._read(name, made, (width,))
        return made

    def _vocab_rows(self, name: str) -> torch.Tensor:
        made = self._empty(self.vocab_rows, self.family.hidden)
        made[self.vocab.count :] = 0
        shape = (self.family.vocab, self.family.hidden)
        self._read(name, made[: self.vocab.count], shape, first=self.vocab.scaled(1))
        return made

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _read(
        self,
        name: str,
        into: torch.Tensor,
        shape: tuple[int, ...],
        first: slice | None = None,
        last: slice | None = None,
    ) -> None:
        self._done += self.checkpoint.read(name, into, shape, first, last)
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def _prefix(checkpoint: Checkpoint) -> str:
    """What stands before `layers.0`: `model.` in a causal checkpoint, nothing in that of a bare decoder."""
    for prefix in ("model.", "", "model.language_model.", "language_model.model."):
        if prefix + "norm.weight" in checkpoint:
            return prefix
    raise ModelInvalid(
        str(checkpoint.path), "the weights lack model.norm.weight", "take config.json and weights of the same model"
    )
