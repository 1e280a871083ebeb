"""A decoder's step in one call, or in two calls a layer where ranks have to add up between them.

Owns the description of one decoder that the compiled code reads. Holds every tensor whose address it gave away.

What a step costs (Zen 5, one core, bf16): Python's part is 7 us for a world of one, and 1 us more for each piece where
ranks add up. Qwen3 shape of 125 M parameters, 250 MB of weights: 6.6 ms at 1 sequence (38 GB/s), 8.2 ms at 8 (30 GB/s),
21.8 ms at 32, of which 18 are products at 430 GFLOP/s; 512 tokens of prefill take 0.26 s, of which 0.22 are products at
455 GFLOP/s. Two cores: 3.5, 4.7, 12.0 ms and 0.139 s: a part of the weights stays in the third cache. Plain torch takes
25, 70, 130 ms and 0.48 s on one. With 8 bits (126 MB): 4.0 ms at 1 sequence (32 GB/s of the 37 that one core reads),
5.1 at 8, 15.4 at 32, 0.19 s for the 512 tokens; with 4 bits in groups of 32: 2.4 ms, 19.7 at 32 and 0.25 s.
"""

from ctypes import addressof
from typing import TYPE_CHECKING

import structlog
import torch

from actors.models.batch import Batch
from actors.models.cache import CachedTensor
from actors.models.kernels import interface
from actors.models.kernels.operations import TYPES, cache_of, step_of
from actors.models.kernels.panels import PanelWeight, pack
from actors.models.kernels.quantized import PackedWeight
from actors.models.tiles import SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.models.decoder import Decoder
    from actors.models.layers import AnyLinear, RMSNorm
    from actors.models.quantized import QuantizedWeight

log = structlog.get_logger()

ACTIVATIONS = {"silu": 0, "swish": 0, "gelu_pytorch_tanh": 1, "gelu_new": 1}


def fits(decoder: "Decoder", block_tokens: int) -> bool:
    """Whether `decoder` is of a type and shape that the kernels take, on a device and in blocks that they read."""
    family = decoder.family
    if decoder.device != "cpu" or decoder.dtype not in TYPES or family.activation not in ACTIVATIONS:
        return False
    widths = (family.hidden, family.head_dim // 2, decoder.layers[0].down.weight.shape[1])
    if any(width % 2 for width in widths):  # bf16 is read in pairs
        return False
    matrices = (decoder.embedding, *(linear.weight for linear in _linears(decoder)))
    if any(not isinstance(matrix, torch.Tensor | PanelWeight | PackedWeight) for matrix in matrices):
        return False  # quantized, but not packed for the kernels
    if interface.loaded() is None:
        return False
    if block_tokens % SLOTS:
        effect = f"plain torch is used, which is slower: take a multiple of {SLOTS}"
        log.warning("kernels_unavailable", reason=f"KV blocks of {block_tokens} tokens", effect=effect)
        return False
    return True


def fuse(decoder: "Decoder", determined: bool = False) -> "Fused":
    """The compiled form of `decoder`, which `fits`, over its caches as they are now.

    `determined`: each row as if it were alone. All weights but those of 4 bits are computed so anyhow.
    """
    library = interface.loaded()
    assert library is not None
    return Fused(decoder, library, determined)


def _linears(decoder: "Decoder") -> "Iterator[AnyLinear]":
    for layer in decoder.layers:
        yield from (layer.qkv, layer.output, layer.gate_up, layer.down)
    yield decoder.head


def _pack(decoder: "Decoder") -> None:
    """The float weights in panels, where they lie."""
    tied = decoder.embedding is decoder.head.weight
    for linear in _linears(decoder):
        if isinstance(linear.weight, torch.Tensor):
            linear.weight = pack(linear.weight)
    if tied:
        decoder.embedding = decoder.head.weight


class Fused:
    """The compiled form of one decoder and its KV cache."""

    def __init__(self, decoder: "Decoder", library: interface.Library, determined: bool = False) -> None:
        self._determined = determined
        self._library, self._world, self._dtype = library, decoder.world, decoder.dtype
        collective = getattr(decoder.world, "collective", None)
        self._collective = None if collective is None else collective.address
        self._kept: list[torch.Tensor] = []
        _pack(decoder)
        self._hidden, self._columns = decoder.family.hidden, decoder.head.weight.shape[0]
        self._layers = (interface.Layer * len(decoder.layers))(
            *(self._layer(decoder, index) for index in range(len(decoder.layers)))
        )
        self._model = self._describe(decoder)
        self._address = addressof(self._model)
        self._rows = torch.empty(2, 0, self._hidden, dtype=self._dtype)

    def forward(self, batch: Batch) -> torch.Tensor:
        """float32 logits [R, columns] of `batch.rows`: complete on rank 0, of the others perhaps their own columns."""
        step, _kept = step_of(batch)
        rows = batch.tokens.shape[0]
        if self._rows.shape[1] < rows:
            self._rows = torch.empty(2, rows, self._hidden, dtype=self._dtype)
        residual, x = self._rows[0, :rows], self._rows[1, :rows]
        whole = self._collective is not None and self._world.rank == 0
        logits = torch.empty(batch.rows.shape[0], self._columns * (self._world.size if whole else 1))
        if self._world.size == 1:
            self._alone(addressof(step), residual, x, logits)
        elif self._collective is not None:
            self._at_once(addressof(step), residual, x, logits)
        else:
            self._together(addressof(step), residual, x, logits)
            logits = self._world.all_gather(logits)
        return logits

    def _alone(self, step: int, residual: torch.Tensor, x: torch.Tensor, logits: torch.Tensor) -> None:
        self._library.forward(self._address, step, residual.data_ptr(), x.data_ptr(), logits.data_ptr())

    def _at_once(self, step: int, residual: torch.Tensor, x: torch.Tensor, logits: torch.Tensor) -> None:
        self._library.forward_together(
            self._address, step, self._collective, residual.data_ptr(), x.data_ptr(), logits.data_ptr()
        )

    def _together(self, step: int, residual: torch.Tensor, x: torch.Tensor, logits: torch.Tensor) -> None:
        library, model, summed = self._library, self._address, self._world.all_reduce
        library.embed(model, step, residual.data_ptr())
        residual = summed(residual)
        stream = residual.data_ptr()
        for index in range(len(self._layers)):
            library.attention_piece(model, step, index, stream, x.data_ptr())
            x = summed(x)
            library.mlp_piece(model, step, index, stream, x.data_ptr())
            x = summed(x)
        library.logits_piece(model, step, stream, x.data_ptr(), logits.data_ptr())

    def _describe(self, decoder: "Decoder") -> interface.Model:
        family = decoder.family
        return interface.Model(
            type=TYPES[decoder.dtype],
            activation=ACTIVATIONS[family.activation],
            hidden=family.hidden,
            layer_count=len(decoder.layers),
            layers=self._layers,
            norm=self._norm(decoder.norm),
            embedding=self._matrix(decoder.embedding),
            # rounded as Gemma rounds it before it multiplies
            embedding_scale=torch.tensor(family.embedding_scale, dtype=decoder.dtype).item(),
            vocab_start=decoder.vocab.start,
            vocab_rows=decoder.vocab.count,
            head=self._weights(decoder.head),
        )

    def _layer(self, decoder: "Decoder", index: int) -> interface.Layer:
        family, layer, (keys, values) = decoder.family, decoder.layers[index], decoder.caches[index]
        rope = decoder.ropes[family.ropes[index]]
        return interface.Layer(
            input_norm=self._norm(layer.input_norm),
            query_norm=self._norm(layer.query_norm),
            key_norm=self._norm(layer.key_norm),
            attention_out_norm=self._norm(layer.attention_out_norm),
            mlp_norm=self._norm(layer.mlp_norm),
            mlp_out_norm=self._norm(layer.mlp_out_norm),
            qkv=self._weights(layer.qkv),
            output=self._weights(layer.output),
            gate_up=self._weights(layer.gate_up),
            down=self._weights(layer.down),
            cache=self._cache(keys, values),
            inverse=self._address_of(rope.inverse),
            rope_factor=rope.factor,
            attention=interface.Attention(
                heads=decoder.heads,
                kv_heads=decoder.kv_heads,
                head_dim=family.head_dim,
                window=family.windows[index] or 0,
                scale=family.scale,
                softcap=family.attention_softcap or 0.0,
            ),
        )

    def _cache(self, keys: CachedTensor, values: CachedTensor) -> interface.Cache:
        made = cache_of(keys, values)
        self._kept += [t for c in (keys, values) for t in (c.numbers, c.scales) if t is not None]
        return made

    def _norm(self, norm: "RMSNorm | None") -> interface.Norm:
        return interface.Norm() if norm is None else interface.Norm(self._address_of(norm.weight.float()), norm.eps)

    def _weights(self, linear: "AnyLinear") -> interface.Weights:
        return self._matrix(linear.weight, None if linear.bias is None else self._address_of(linear.bias.float()))

    def _matrix(
        self, weight: "torch.Tensor | PanelWeight | PackedWeight | QuantizedWeight", bias: int | None = None
    ) -> interface.Weights:
        if isinstance(weight, PanelWeight | PackedWeight):
            self._address_of(weight.memory)
            return weight.describe(bias) if isinstance(weight, PanelWeight) else weight.describe(bias, self._determined)
        if not isinstance(weight, torch.Tensor):
            raise ValueError(f"a weight of {weight.bits} bits is not packed for the kernels")
        return interface.Weights(self._address_of(weight), bias, *weight.shape)

    def _address_of(self, tensor: torch.Tensor) -> int:
        if not tensor.is_contiguous():
            raise ValueError(f"a weight of shape {list(tensor.shape)} does not lie in one piece")
        self._kept.append(tensor)
        return tensor.data_ptr()
