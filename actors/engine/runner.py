"""One shard's side of a step: from the plan to tensors, through the model, to tokens.

Owns a mirror of every slot (tokens, block table), kept up by the plans, so that a plan need not repeat them. Knows
nothing of who waits or why. All ranks run the same forward; only rank 0 has a sampler and answers.
"""

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from actors.engine.plan import Plan, Result
from actors.engine.sampler import Sampler
from actors.messages import Assignment
from actors.models.batch import Batch

if TYPE_CHECKING:
    from actors.models import Model


class Runner:
    """Executes plans on one model. Not thread safe: its owner calls it from one thread."""

    def __init__(
        self,
        model: "Model",
        sampler: Sampler | None,
        *,
        slots: int,
        context_tokens: int,
        block_tokens: int,
        device: str = "cpu",
    ) -> None:
        self._model, self._sampler = model, sampler
        self._block_tokens, self._device = block_tokens, device
        self._tokens = np.zeros((slots, context_tokens + 1), np.int64)
        self._tables = np.zeros((slots, -(-context_tokens // block_tokens) + 1), np.int32)
        self._held = np.zeros(slots, np.int64)  # blocks in each table

    @classmethod
    def serving(
        cls, model: "Model", assignment: Assignment, blocks: int, context_tokens: int, end_tokens: tuple[int, ...]
    ) -> "Runner":
        """One rank's runner over a cache of `blocks`, as its assignment says; only rank 0 samples."""
        limits = assignment.limits
        model.allocate(blocks, limits.block_tokens)
        slots = limits.running_sequences
        return cls(
            model,
            Sampler(model.vocab_size, slots, end_tokens) if assignment.rank == 0 else None,
            slots=slots,
            context_tokens=context_tokens,
            block_tokens=limits.block_tokens,
            device=assignment.device,
        )

    @torch.inference_mode()
    def execute(self, plan: Plan) -> Result | None:
        """Run one step. Rank 0 gets the sampled tokens, the others None."""
        begun = time.perf_counter()
        self._mirror(plan)
        logits = self._model.forward(self._batch(plan))
        computed = time.perf_counter()
        if self._sampler is None:
            return None
        if len(plan.samples) == 0:
            return Result(plan.number, [], None, computed - begun)
        sampled = self._sampler.sample(logits, plan.slots[plan.samples].tolist())
        logprobs = sampled.logprobs if any(p is not None for p in sampled.logprobs) else None
        return Result(
            plan.number,
            sampled.tokens,
            logprobs,
            computed - begun,
            time.perf_counter() - computed,
            faulty=sampled.faulty,
        )

    def _mirror(self, plan: Plan) -> None:
        for slot in plan.leaves:
            self._held[slot] = 0
            if self._sampler is not None:
                self._sampler.leave(slot)
        for join in plan.joins:
            known = len(join.prompt) + len(join.emitted)
            self._tokens[join.slot, : len(join.prompt)] = join.prompt
            self._tokens[join.slot, len(join.prompt) : known] = join.emitted
            self._held[join.slot] = 0
            if self._sampler is not None:
                self._sampler.join(join.slot, join.params, join.seed, join.choice, join.prompt, join.emitted)
        for slot, blocks in plan.blocks:
            held = self._held[slot]
            self._tables[slot, held : held + len(blocks)] = blocks
            self._held[slot] = held + len(blocks)
        decodes = plan.decodes
        self._tokens[plan.slots[:decodes], plan.starts[:decodes]] = plan.inputs

    def _batch(self, plan: Plan) -> Batch:
        decodes, size = plan.decodes, self._block_tokens
        slots, starts = plan.slots, plan.starts.astype(np.int64)
        ends = np.cumsum(plan.counts, dtype=np.int64)
        rows = np.repeat(slots, plan.counts)
        positions = np.arange(ends[-1]) - np.repeat(ends - plan.counts - starts, plan.counts)
        homes = self._tables[rows, positions // size].astype(np.int64) * size + positions % size
        contexts = starts + plan.counts
        longest = int(contexts.max())
        tables = self._tables[slots, : -(-longest // size)]
        return Batch(
            tokens=self._tensor(self._tokens[rows, positions]),
            positions=self._tensor(positions),
            slots=self._tensor(homes),
            starts=self._tensor(np.concatenate(([0], ends)).astype(np.int32)),
            contexts=self._tensor(contexts.astype(np.int32)),
            tables=self._tensor(tables),
            rows=self._tensor(ends[plan.samples] - 1),
            decodes=decodes,
            longest_query=int(plan.counts.max()),
            longest_context=longest,
            block_tokens=size,
        )

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return tensor if self._device == "cpu" else tensor.to(self._device, non_blocking=True)
