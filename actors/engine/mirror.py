"""What a rank knows of every slot: its tokens and its blocks, kept up by the plans so that no plan repeats them.

Makes the tensors of a step out of it. Knows nothing of sampling, ranks or why a step is as it is.
"""

import numpy as np
import torch

from actors.engine.plan import Plan
from actors.models.batch import Batch


class Mirror:
    """Tokens and block tables of `slots` sequences."""

    def __init__(self, slots: int, context_tokens: int, block_tokens: int, device: str) -> None:
        self.block_tokens, self._device = block_tokens, device
        self.tokens = np.zeros((slots, context_tokens + 1), np.int64)
        self._tables = np.zeros((slots, -(-context_tokens // block_tokens) + 1), np.int32)
        self._held = np.zeros(slots, np.int64)  # blocks in each table

    def take(self, plan: Plan) -> None:
        """Bring every slot to where `plan` finds it."""
        for slot in plan.leaves:
            self._held[slot] = 0
        for join in plan.joins:
            known = len(join.prompt) + len(join.emitted)
            self.tokens[join.slot, : len(join.prompt)] = join.prompt
            self.tokens[join.slot, len(join.prompt) : known] = join.emitted
            self._held[join.slot] = 0
        for slot, blocks in plan.blocks:
            held = self._held[slot]
            self._tables[slot, held : held + len(blocks)] = blocks
            self._held[slot] = held + len(blocks)
        decodes = plan.decodes
        self.tokens[plan.slots[:decodes], plan.starts[:decodes]] = plan.inputs

    def blocks(self, slot: int) -> np.ndarray:
        """The block table of `slot`; not a copy."""
        return self._tables[slot, : self._held[slot]]

    def decodes(self, slots: np.ndarray, positions: np.ndarray) -> Batch:
        """One token of each slot, at `positions` [rows] (int64)."""
        size, rows = self.block_tokens, len(slots)
        longest = int(positions.max()) + 1
        homes = self._tables[slots, positions // size].astype(np.int64) * size + positions % size
        return Batch(
            tokens=self._tensor(self.tokens[slots, positions]),
            positions=self._tensor(positions),
            slots=self._tensor(homes),
            starts=self._tensor(np.arange(rows + 1, dtype=np.int32)),
            contexts=self._tensor((positions + 1).astype(np.int32)),
            tables=self._tensor(self._tables[slots, : -(-longest // size)]),
            rows=self._tensor(np.arange(rows)),
            decodes=rows,
            longest_query=1,
            longest_context=longest,
            block_tokens=size,
        )

    def queries(self, slots: np.ndarray, starts: np.ndarray, counts: np.ndarray, rows: np.ndarray | None) -> Batch:
        """`counts[i]` tokens of slot i from `starts[i]`, those of one token first; `rows`: wanted logits, None for all.

        All int64.
        """
        size = self.block_tokens
        ends = np.cumsum(counts)
        owners = np.repeat(slots, counts)
        positions = np.arange(ends[-1]) - np.repeat(ends - counts - starts, counts)
        homes = self._tables[owners, positions // size].astype(np.int64) * size + positions % size
        contexts = starts + counts
        longest = int(contexts.max())
        return Batch(
            tokens=self._tensor(self.tokens[owners, positions]),
            positions=self._tensor(positions),
            slots=self._tensor(homes),
            starts=self._tensor(np.concatenate(([0], ends)).astype(np.int32)),
            contexts=self._tensor(contexts.astype(np.int32)),
            tables=self._tensor(self._tables[slots, : -(-longest // size)]),
            rows=self._tensor(np.arange(ends[-1]) if rows is None else rows),
            decodes=int(np.count_nonzero(counts == 1)),
            longest_query=int(counts.max()),
            longest_context=longest,
            block_tokens=size,
        )

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return tensor if self._device == "cpu" else tensor.to(self._device, non_blocking=True)
