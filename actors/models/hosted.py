"""Every other decoder-only architecture, by transformers' own modules over the same Batch and paged store.

Decodes run as one call with a query of one token each, each prefill chunk as its own, with the positions and the
mask that `generate` would give to left-padded prompts.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers.cache_utils import DynamicCache
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from actors.models import autotp, probe
from actors.models.batch import Batch
from actors.models.cache import bytes_per_token
from actors.models.checkpoint import Checkpoint
from actors.models.config import context_of, refuse_stateful, unsupported
from actors.models.matrices import BITS
from actors.models.parallel import World
from actors.models.rope import exact_context
from actors.models.rounded import round_linears
from actors.models.skeleton import Progress, build, fill
from actors.models.store import PagedCache, Shape, Span, StoredLayer, discover, spans
from actors.quantization.declared import declared
from cluster.errors import ModelInvalid, shorten


class HostedModel:
    """A model that runs by transformers' modules. `padded`: whether decodes of unequal length may share a call."""

    def __init__(self, module: Any, config: Any, device: str) -> None:
        text = config.get_text_config(decoder=True)
        self.module, self.config, self.device = module, config, device
        self.vocab_size = int(text.vocab_size)
        limit = exact_context(text)
        self.context_tokens = min(context_of(text), limit) if limit else context_of(text)
        self.dtype = module.dtype
        self._accepts = set(inspect.signature(module.forward).parameters)
        self.shapes = self._discover()
        self.keep_as("auto")
        self.layers: list[StoredLayer] = []
        # sparse attention breaks ties by place, which padding moves
        self.padded = all(len(layer) <= 2 for layer in self.shapes)

    def keep_as(self, kv_cache_dtype: str) -> None:
        """How the next `allocate` keeps what layers cache."""
        self._kv_cache_dtype = kv_cache_dtype
        self.kv_bytes_per_token = sum(
            bytes_per_token(shape, self.dtype, kv_cache_dtype) for layer in self.shapes for shape in layer
        )

    def allocate(self, blocks: int, block_tokens: int) -> None:
        """Make the paged store, zeroed; drops the one before."""
        self.layers = []
        slots = blocks * block_tokens
        self.layers = [
            StoredLayer(shapes, slots, self.dtype, self.device, self._kv_cache_dtype) for shapes in self.shapes
        ]

    def cached(self) -> list[torch.Tensor]:
        """All that the store is made of, [slots, ...] each."""
        return [part for layer in self.layers for kept in layer.tensors for part in kept.parts]

    @torch.inference_mode()
    def forward(self, batch: Batch) -> torch.Tensor:
        """One step: float32 logits [R, vocab] of `batch.rows`, complete on every rank."""
        wanted = batch.rows.tolist()
        found: dict[int, torch.Tensor] = {}
        for span in spans(batch, self.padded):
            rows = [row for row in wanted if span.rows.start <= row < span.rows.stop]
            for row, logits in zip(rows, self._call(batch, span, rows), strict=True):
                found[row] = logits
        if not found:
            return torch.empty((0, self.vocab_size), device=self.device)
        return torch.stack([found[row] for row in wanted]).float()

    def _call(self, batch: Batch, span: Span, rows: list[int]) -> torch.Tensor:
        """Logits [len(rows), vocab] of one call of the modules."""
        queries = span.positions.shape[1]
        kept = torch.tensor([row - span.rows.start for row in rows], dtype=torch.int64, device=self.device)
        inputs = {
            "input_ids": batch.tokens[span.rows].view(span.sequences, queries),
            "attention_mask": span.seen.long(),
            "position_ids": span.positions,
            "past_key_values": PagedCache(self.layers, batch, span),
            "use_cache": True,
        }
        late = "logits_to_keep" in self._accepts and span.sequences == 1 and rows
        if late:
            inputs["logits_to_keep"] = kept
        logits = self.module(**{name: value for name, value in inputs.items() if name in self._accepts}).logits
        flat: torch.Tensor = logits.reshape(-1, logits.shape[-1])
        return flat[:, : self.vocab_size] if late else flat.index_select(0, kept)[:, : self.vocab_size]

    @torch.inference_mode()
    def _discover(self) -> list[tuple[Shape, ...]]:
        """What each layer caches, learnt from one call with a cache of transformers' own."""
        cache = DynamicCache(config=self.config)
        tokens = torch.tensor([[1, 0]], device=self.device) % self.vocab_size
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "past_key_values": cache}
        self.module(**inputs, use_cache=True)
        shapes = discover(cache)
        if not any(shapes):
            raise unsupported(self.config, "keeps no key-value cache")
        return shapes


def load_hosted(
    path: Path,
    config: Any,
    dtype: torch.dtype | None,
    device: str,
    world: World,
    progress: Progress | None,
    kv_cache_dtype: str = "auto",
    quantization: str | None = None,
) -> HostedModel:
    """Read this rank's part of the folder `path`; raises ModelInvalid or ArchitectureUnsupported."""
    refuse_stateful(config)
    if declared(path) is not None:
        raise unsupported(config, "runs by transformers' modules, which take no quantized weights,")
    checkpoint = Checkpoint(path)
    config.use_cache = True
    try:
        module = build(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, dtype or checkpoint.dtype(checkpoint.tensors))
    except Exception as error:
        raise ModelInvalid(
            str(path), f"config.json makes no {config.model_type}: {error}", "correct config.json"
        ) from error
    split = autotp.plan(module, config, world)
    fill(module, checkpoint, split.cuts, device, progress)
    module.to(device)
    if quantization is not None:
        round_linears(module, BITS[quantization])
    split.apply()
    hosted = _proven(module, config, device)
    hosted.keep_as(kv_cache_dtype)  # after the proof: it compares more closely than rounding allows
    return hosted


def _proven(module: Any, config: Any, device: str) -> HostedModel:
    """The model, after a few tokens went through it; raises ArchitectureUnsupported if they do not get through."""
    try:
        hosted = HostedModel(module, config, device)
        probe.check(hosted)
    except ModelInvalid:
        raise
    except Exception as error:  # whatever 150 architectures raise when called in a way they were not made for
        raise unsupported(
            config, f"does not run over a paged cache ({type(error).__name__}: {shorten(str(error))})"
        ) from error
    return hosted
