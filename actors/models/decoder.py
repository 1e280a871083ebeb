"""One generic decoder for the Llama-like families, with merged weights and a paged KV cache.

A step reads as: embed, then per layer norm, attend, sum over ranks, norm, gate, sum over ranks; then logits of
the rows that are wanted. What differs between families stands in `Family`, not here.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from actors.models import layers
from actors.models.attention import PagedAttention
from actors.models.batch import Batch
from actors.models.cache import CachedTensor, bytes_per_token
from actors.models.checkpoint import Checkpoint
from actors.models.family import Family
from actors.models.kernels.fused import Fused, fits, fuse
from actors.models.kernels.panels import PanelWeight
from actors.models.layers import Activation, AnyLinear
from actors.models.parallel import World
from actors.models.rope import Rope, exact_context
from actors.models.tiles import KEYS, SLOTS, VALUES, Tiles
from actors.models.weights import Embedding, LayerWeights, Loader, Progress
from cluster.errors import ModelInvalid

Angles = tuple[torch.Tensor, torch.Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "silu": functional.silu,
    "swish": functional.silu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}


class Decoder:
    """A model of one of our families: this rank's part of it."""

    def __init__(self, family: Family, config: Any, loader: Loader, world: World, kv_cache_dtype: str = "auto") -> None:
        self.family, self.world, self.kv_cache_dtype = family, world, kv_cache_dtype
        self.vocab_size = family.vocab
        self.context_tokens = min(family.context, exact_context(config) or family.context)
        self.heads, self.kv_heads = loader.queries.count, loader.keys.count
        self.dtype, self.device = loader.dtype, loader.device
        slot = (self.kv_heads, family.head_dim)
        self.kv_bytes_per_token = 2 * family.layers * bytes_per_token(slot, self.dtype, kv_cache_dtype)
        self.activation = _activation(family.activation)
        kinds = set(family.ropes)
        self.ropes = {kind: Rope(config, kind, family.head_dim, loader.device) for kind in kinds}
        self.vocab = loader.vocab
        self.embedding: Embedding | PanelWeight = loader.embedding()
        self.layers = [loader.layer(index) for index in range(family.layers)]
        self.norm = loader.final_norm()
        self.head = loader.head(self.embedding)
        self.caches: list[tuple[CachedTensor, CachedTensor]] = []  # keys and values of each layer
        self._determined = False
        self.fused: Fused | None = None  # the same step, compiled, where this machine can have it

    def determine(self) -> bool:
        """Compute every row as if it were alone, from the next `allocate` on; whether that can be had here."""
        self._determined = fits(self, SLOTS)
        return self._determined

    def allocate(self, blocks: int, block_tokens: int) -> None:
        """Make the KV cache, zeroed; drops the one before."""
        self.caches, self.fused = [], None
        shape = (blocks * block_tokens, self.kv_heads, self.family.head_dim)
        compiled = fits(self, block_tokens)
        keys, values = (KEYS, VALUES) if compiled else (None, None)
        self.caches = [(self._empty(shape, keys), self._empty(shape, values)) for _ in range(self.family.layers)]
        self.fused = fuse(self, self._determined) if compiled else None

    def _empty(self, shape: tuple[int, ...], tiles: Tiles | None) -> CachedTensor:
        return CachedTensor(shape, self.dtype, self.device, self.kv_cache_dtype, tiles)

    def cached(self) -> list[torch.Tensor]:
        """All that the KV cache is made of, [slots, ...] each."""
        return [part for layer in self.caches for kept in layer for part in kept.parts]

    @torch.inference_mode()
    def forward(self, batch: Batch) -> torch.Tensor:
        """One step: float32 logits [R, vocab] of `batch.rows`, complete on rank 0."""
        if self.fused is not None:
            return self._finished(self.fused.forward(batch))
        attention = PagedAttention(batch)
        angles = {kind: rope.angles(batch.positions, self.dtype) for kind, rope in self.ropes.items()}
        residual = self._embed(batch.tokens)
        x = self.layers[0].input_norm(residual)
        for index, layer in enumerate(self.layers):
            x = self._attend(index, layer, x, angles[self.family.ropes[index]], attention)
            x = x if layer.attention_out_norm is None else layer.attention_out_norm(x)
            x, residual = layer.mlp_norm.add(x, residual)
            x = self._sum(layer.down, layers.gated(layer.gate_up(x), self.activation))
            x = x if layer.mlp_out_norm is None else layer.mlp_out_norm(x)
            following = self.norm if index + 1 == len(self.layers) else self.layers[index + 1].input_norm
            x, residual = following.add(x, residual)
        return self._logits(x.index_select(0, batch.rows))

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.world.size == 1:
            rows = self._rows(tokens)
        else:
            own = tokens - self.vocab.start
            elsewhere = (own < 0) | (own >= self.vocab.count)
            rows = self._rows(own.masked_fill(elsewhere, 0))
            rows = self.world.all_reduce(rows.masked_fill_(elsewhere[:, None], 0))
        scale = self.family.embedding_scale
        # Gemma rounds the factor to the dtype of the weights before it multiplies
        return rows if scale == 1.0 else rows * torch.tensor(scale, dtype=self.dtype, device=rows.device)

    def _rows(self, tokens: torch.Tensor) -> torch.Tensor:
        if isinstance(self.embedding, torch.Tensor):
            return functional.embedding(tokens, self.embedding)
        return self.embedding.take(tokens).to(self.dtype)

    def _attend(
        self, index: int, layer: LayerWeights, x: torch.Tensor, angles: Angles, attention: PagedAttention
    ) -> torch.Tensor:
        family = self.family
        qkv = layer.qkv(x).view(x.shape[0], -1, family.head_dim)
        q, k, v = torch.split(qkv, [self.heads, self.kv_heads, self.kv_heads], dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            q, k = layer.query_norm(q), layer.key_norm(k)
        keys, values = self.caches[index]
        keys.write(attention.batch.slots, layers.rotate(k, *angles))
        values.write(attention.batch.slots, v)
        seen = attention(
            layers.rotate(q, *angles), keys, values, family.scale, family.windows[index], family.attention_softcap
        )
        return self._sum(layer.output, seen.reshape(x.shape[0], -1))

    def _sum(self, linear: AnyLinear, x: torch.Tensor) -> torch.Tensor:
        """A projection whose input is spread over the ranks; its bias is added once."""
        if self.world.size == 1:
            return linear(x)
        whole = self.world.all_reduce(linear.product(x))
        return whole if linear.bias is None else whole + linear.bias

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return self._finished(self.world.all_gather(self.head(x)))

    def _finished(self, logits: torch.Tensor) -> torch.Tensor:
        """Without what pads the last columns."""
        logits = logits[:, : self.vocab_size].float()
        cap = self.family.logit_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap


def load_decoder(
    path: Path,
    config: Any,
    family: Family,
    dtype: torch.dtype | None,
    device: str,
    world: World,
    progress: Progress | None,
    quantization: str | None = None,
    kv_cache_dtype: str = "auto",
) -> Decoder:
    """Read this rank's part of the folder `path`; raises ModelInvalid. `dtype` None: what the weights are stored in."""
    checkpoint = Checkpoint(path)
    chosen = dtype or checkpoint.dtype(checkpoint.tensors)
    loader = Loader(family, checkpoint, world, chosen, device, progress, quantization)
    decoder = Decoder(family, config, loader, world, kv_cache_dtype)
    loader.finish()
    return decoder


def _activation(name: str) -> Activation:
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    # brings torch's compiler and its distributed tensors with it: 1.4 s and 80 MB that our families never pay
    from transformers.activations import ACT2FN  # noqa: PLC0415

    try:
        made: Activation = ACT2FN[name]
    except KeyError as error:
        raise ModelInvalid(
            "config.json", f"the activation {name!r} is not known", f"one of {sorted(ACT2FN)}"
        ) from error
    return made
