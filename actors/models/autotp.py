"""How transformers' modules are split over ranks: what AutoTP decides, and a split that is right for any linear.

DeepSpeed's AutoTP turns an architecture's own plan into column and row layers: heads and widths are spread, one sum
ends each block. It is followed where our tests found its result equal to one rank's. Every other linear keeps a part
of its outputs and gathers them, which no architecture can notice; so memory and arithmetic are split all the same.
"""

import fnmatch
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from actors.models import split
from actors.models.checkpoint import Checkpoint
from actors.models.parallel import World
from actors.models.skeleton import Cut
from actors.models.split import Share

PLAIN_STYLES = ("colwise", "rowwise", "colwise_gather_output", "replicated_with_grad_allreduce")
SMALLEST_SPLIT = 16  # outputs a rank; below that (routers, gates) a gather costs more than it saves


@dataclass(frozen=True, slots=True)
class Part(Cut):
    """A part of one dimension of a parameter, zero-padded to `length`."""

    dim: int
    share: Share
    length: int

    def local(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[: self.dim], self.length, *shape[self.dim + 1 :])

    def read(self, checkpoint: Checkpoint, name: str, into: torch.Tensor, shape: tuple[int, ...]) -> int:
        own, into = self.share.scaled(1), into.narrow(self.dim, 0, self.share.count)
        if self.dim == 0:
            return checkpoint.read(name, into, shape, first=own)
        return checkpoint.read(name, into, shape, last=own)

    def take(self, whole: torch.Tensor, into: torch.Tensor) -> None:
        into.narrow(self.dim, 0, self.share.count).copy_(whole.narrow(self.dim, self.share.start, self.share.count))


@dataclass(frozen=True, slots=True)
class GateUp(Cut):
    """The same part of the gate and of the up half of experts' merged weights [experts, gate and up, hidden]."""

    share: Share

    def local(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 2 * self.share.count, shape[2])

    def read(self, checkpoint: Checkpoint, name: str, into: torch.Tensor, shape: tuple[int, ...]) -> int:
        whole = torch.empty(shape, dtype=into.dtype)
        taken = checkpoint.read(name, whole, shape)
        self.take(whole, into)
        return taken

    def take(self, whole: torch.Tensor, into: torch.Tensor) -> None:
        for half, mine in zip(whole.chunk(2, dim=1), into.chunk(2, dim=1), strict=True):
            mine.copy_(half[:, self.share.start : self.share.stop])


@dataclass
class Split:
    """What this rank keeps of each parameter, and which modules sum or gather because of it."""

    world: World
    cuts: dict[str, Cut] = field(default_factory=dict)
    columns: list[tuple[nn.Module, int]] = field(default_factory=list)  # gather this many outputs
    rows: list[Any] = field(default_factory=list)
    experts: list[nn.Module] = field(default_factory=list)
    embeddings: list[tuple[nn.Module, Share]] = field(default_factory=list)

    def apply(self) -> None:
        """Make the modules, now holding their parts, sum and gather."""
        for module, outputs in self.columns:
            if isinstance(module, Conv1D):
                module.nf = module.weight.shape[1]  # it shapes its output by this
            module.forward = partial(_gathered, self.world, module.forward, outputs)
        for module in self.rows:
            bias, module.bias = module.bias, None  # added once, to the sum
            module.forward = partial(_summed_row, self.world, module.forward, bias)
        for module in self.experts:
            module.forward = partial(_summed, self.world, module.forward)
        for module, share in self.embeddings:
            module.forward = partial(_looked_up, self.world, module.forward, share)


def plan(model: Any, config: Any, world: World) -> Split:
    """How `model`, whose parameters are still empty, is split; nothing is in a world of one."""
    made = Split(world)
    if world.size == 1:
        return made
    styles = _decide(model, config, world.size)
    _split_embedding(made, model)
    for name, module in model.named_modules():
        if _is_expert_bank(module):
            _split_experts(made, name, module)
        elif type(module) in (nn.Linear, Conv1D) or type(module).__name__ == "FalconLinear":
            _split_linear(made, name, module, styles.get(name))
    return made


def _split_linear(made: Split, name: str, module: Any, style: str | None) -> None:
    transposed = isinstance(module, Conv1D)
    outputs = module.weight.shape[1] if transposed else module.weight.shape[0]
    inputs = module.weight.shape[0] if transposed else module.weight.shape[1]
    rank, size = made.world.rank, made.world.size
    if style == "row":
        share = split.even(inputs, rank, size)
        made.cuts[f"{name}.weight"] = Part(1, share, share.count)
        made.rows.append(module)
        return
    if outputs < SMALLEST_SPLIT * size or f"{name}.weight" in made.cuts:
        return
    share = split.padded(outputs, rank, size)
    length = -(-outputs // size)
    made.cuts[f"{name}.weight"] = Part(1 if transposed else 0, share, length)
    if module.bias is not None:
        made.cuts[f"{name}.bias"] = Part(0, share, length)
    if style != "column":
        made.columns.append((module, outputs))


def _split_embedding(made: Split, model: Any) -> None:
    """The token embedding by rows, as the output projection is, which may be the same tensor."""
    embedding = model.get_input_embeddings()
    name = next((name for name, module in model.named_modules() if module is embedding), None)
    if not isinstance(embedding, nn.Embedding) or name is None:
        return
    rows = embedding.weight.shape[0]
    if rows < SMALLEST_SPLIT * made.world.size:
        return
    share = split.padded(rows, made.world.rank, made.world.size)
    made.cuts[f"{name}.weight"] = Part(0, share, -(-rows // made.world.size))
    made.embeddings.append((embedding, share))


def _is_expert_bank(module: nn.Module) -> bool:
    """Whether `module` holds all experts in two tensors whose product is a sum over the width."""
    kind = tuple(getattr(module, name, None) for name in ("has_gate", "has_bias", "is_transposed", "is_concatenated"))
    weights = {name: parameter.dim() for name, parameter in module.named_parameters(recurse=False)}
    return (
        kind == (True, False, False, True)
        and not getattr(module, "has_post_expert_norm", False)
        and weights == {"gate_up_proj": 3, "down_proj": 3}
    )


def _split_experts(made: Split, name: str, module: Any) -> None:
    share = split.even(module.down_proj.shape[2], made.world.rank, made.world.size)
    made.cuts[f"{name}.gate_up_proj"] = GateUp(share)
    made.cuts[f"{name}.down_proj"] = Part(2, share, share.count)
    made.experts.append(module)


def _decide(model: Any, config: Any, size: int) -> dict[str, str]:
    """AutoTP's "column" and "row" for the linears of `model`, if all of them can be cut evenly; else none."""
    text = config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    if (
        config.model_type not in SPLIT_BY_HEADS
        or heads % size
        or (getattr(text, "num_key_value_heads", 0) or heads) % size
    ):
        return {}
    from deepspeed.module_inject.autotp_config import AutoTPConfig, PartitionType  # noqa: PLC0415
    from deepspeed.module_inject.tp_plan_converter import TPPlanConverter  # noqa: PLC0415

    specs = TPPlanConverter.convert(_whole_blocks(getattr(text, "base_model_tp_plan", None) or {}))
    decision = AutoTPConfig(layer_specs=specs or [])
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        spec = decision.find_matching_spec(f"{name}.weight") if type(module) is nn.Linear else None
        if spec is None or spec.gather_output or spec.partition_type is PartitionType.SKIP:
            continue
        row = spec.partition_type is PartitionType.ROW
        if module.weight.shape[1 if row else 0] % size:
            return {}
        found[name] = "row" if row else "column"
    return found


def _whole_blocks(styles: dict[str, str]) -> dict[str, str]:
    """The plan without those blocks of which AutoTP does not know every layer's style."""
    strange = [name for name, style in styles.items() if style not in PLAIN_STYLES]
    parents = {name if name.endswith("experts") else name.rpartition(".")[0] for name in strange}
    return {
        name: style
        for name, style in styles.items()
        if name not in strange and not any(fnmatch.fnmatchcase(name, f"{parent}.*") for parent in parents)
    }


def _gathered(world: World, forward: Any, outputs: int, x: torch.Tensor) -> torch.Tensor:
    return world.all_gather(forward(x))[..., :outputs]


def _summed_row(world: World, forward: Any, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    whole = world.all_reduce(forward(x))
    return whole if bias is None else whole + bias


def _summed(world: World, forward: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    return world.all_reduce(forward(*args, **kwargs))


def _looked_up(world: World, forward: Any, share: Share, tokens: torch.Tensor) -> torch.Tensor:
    own = tokens - share.start
    elsewhere = (own < 0) | (own >= share.count)
    rows = forward(own.masked_fill(elsewhere, 0))
    return world.all_reduce(rows.masked_fill(elsewhere[..., None], 0))


# Architectures of transformers 5.23 whose tokens were found equal on one rank and on two under AutoTP's split.
SPLIT_BY_HEADS = frozenset(
    [
        "apertus", "arcee", "axk1", "axk2", "beam", "cohere", "cohere2", "cohere2_moe", "cwm", "deepseek_v2",
        "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "flex_olmo",
        "flint", "gemma3n_text", "gemma4_text", "gemma4_unified_text", "glm", "glm4", "glm4_moe", "glm4_moe_lite",
        "glm_moe_dsa", "gpt_neox", "granite", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoeshared",
        "helium", "hrm_text", "hunyuan_v1_moe", "hy_v3", "hy_v4", "hyperclovax", "internlm3", "iquestcoder",
        "jais2", "kolibri1", "lfm2_moe", "llama4_text", "longcat_flash", "mellum", "mimo_v2_flash", "minicpm3",
        "minimax_m2", "minimax_m3_vl_text", "ministral", "ministral3", "mixtral", "nanochat", "nemotron", "olmo",
        "olmo2", "olmo3", "olmoe", "phi", "phi3", "phimoe", "qwen2_moe", "qwen3_moe", "seed_oss", "smollm3",
        "solar_open", "starcoder2", "vaultgemma", "youtu",
    ]
)  # fmt: skip
