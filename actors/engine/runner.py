"""One shard's side of a step: from the plan to tensors, through the model, to tokens.

Owns a mirror of every slot (tokens, block table), kept up by the plans, so that a plan need not repeat them. Knows
nothing of who waits or why. All ranks run the same forward; only rank 0 has a sampler and answers.

A plan of several steps is run without asking the leader in between: rank 0 tells the others the tokens that it drew
and whether another step follows. It ends early where a sequence may have ended or the leader wants to plan anew.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from actors.engine.grammar import Grammars
from actors.engine.plan import Plan, Result
from actors.engine.sampler import Sampler
from actors.engine.tokens import Tokenizer
from actors.messages import Assignment, TokenLogprob
from actors.models.batch import Batch
from actors.models.parallel import Alone, World

if TYPE_CHECKING:
    from actors.models import Model


# The leader plans by what steps took of late. Where they take far longer now (more rows, a busy machine), a run must
# not keep readers waiting for all of it: well beyond what it plans for, below what anybody notices.
LONGEST_RUN_SECONDS = 0.05


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
        end_tokens: tuple[int, ...] = (),
        world: World | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model, self._sampler, self._world, self._clock = model, sampler, world or Alone(), clock
        self._end_tokens = frozenset(end_tokens)
        self._ends: dict[int, frozenset[int]] = {}  # tokens that may end the sequence in a slot
        self._block_tokens, self._device = block_tokens, device
        self._tokens = np.zeros((slots, context_tokens + 1), np.int64)
        self._tables = np.zeros((slots, -(-context_tokens // block_tokens) + 1), np.int32)
        self._held = np.zeros(slots, np.int64)  # blocks in each table

    @classmethod
    def serving(
        cls,
        model: "Model",
        assignment: Assignment,
        blocks: int,
        context_tokens: int,
        end_tokens: tuple[int, ...],
        world: World | None = None,
    ) -> "Runner":
        """One rank's runner over a cache of `blocks`, as its assignment says; only rank 0 samples."""
        limits = assignment.limits
        model.allocate(blocks, limits.block_tokens)
        slots = limits.running_sequences
        return cls(
            model,
            sampler(model.vocab_size, assignment, end_tokens) if assignment.rank == 0 else None,
            slots=slots,
            context_tokens=context_tokens,
            block_tokens=limits.block_tokens,
            device=assignment.device,
            end_tokens=end_tokens,
            world=world,
        )

    @torch.inference_mode()
    def execute(self, plan: Plan, interrupted: Callable[[], bool] = lambda: False) -> Result | None:
        """Run the plan's steps. Rank 0 gets the sampled tokens, the others None.

        `interrupted` is asked on rank 0 after each step but the last: whether to leave the rest. Where a later step
        of a rank without others fails, its plan ends before it: planned again, it fails alone.
        """
        begun = self._clock()
        self._mirror(plan)
        if (plan.counts == 1).all():
            positions = plan.starts.astype(np.int64)
            batch = self._decodes(plan.slots, positions, plan.samples)
        else:
            batch = self._batch(plan)
        slots = plan.slots[plan.samples].tolist()
        done = _Done([], [])
        while True:
            try:
                self._step(batch, slots, done)
            except Exception:
                if done.steps == 0 or self._world.size > 1:
                    raise
                break
            if done.steps == plan.steps:
                break
            late = self._clock() - begun > LONGEST_RUN_SECONDS
            tokens = self._agree(done, slots, late or interrupted())
            if tokens is None:
                break
            positions = positions + 1
            self._tokens[plan.slots, positions] = tokens
            batch = self._decodes(plan.slots, positions, plan.samples)
        return None if self._sampler is None else done.result(plan.number, self._clock() - begun)

    def _step(self, batch: Batch, slots: list[int], done: "_Done") -> None:
        if self._sampler is not None:
            self._sampler.prepare(slots)
        logits = self._model.forward(batch)
        if self._sampler is not None:
            done.sample_from(self._sampler, logits, slots)
        done.steps += 1

    def _agree(self, done: "_Done", slots: list[int], leave: bool) -> list[int] | None:
        """The tokens that the next step is fed with, the same on all ranks; None to leave it."""
        told: list[int] = []
        if self._sampler is not None:
            last = done.tokens[-len(slots) :]
            over = leave or bool(done.faulty)
            over = over or any(token in self._ends[slot] for slot, token in zip(slots, last, strict=True))
            told = [int(over), *last]
        over_, *tokens = self._world.share(told, len(slots) + 1)
        return None if over_ else tokens

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
                ends = frozenset() if join.params.ignore_eos else self._end_tokens
                self._ends[join.slot] = ends.union(join.params.stop_ids)
        for slot, blocks in plan.blocks:
            held = self._held[slot]
            self._tables[slot, held : held + len(blocks)] = blocks
            self._held[slot] = held + len(blocks)
        decodes = plan.decodes
        self._tokens[plan.slots[:decodes], plan.starts[:decodes]] = plan.inputs

    def _decodes(self, slots: np.ndarray, positions: np.ndarray, samples: np.ndarray) -> Batch:
        """`_batch` where every row is one token."""
        size, rows = self._block_tokens, len(slots)
        longest = int(positions.max()) + 1
        homes = self._tables[slots, positions // size].astype(np.int64) * size + positions % size
        return Batch(
            tokens=self._tensor(self._tokens[slots, positions]),
            positions=self._tensor(positions),
            slots=self._tensor(homes),
            starts=self._tensor(np.arange(rows + 1, dtype=np.int32)),
            contexts=self._tensor((positions + 1).astype(np.int32)),
            tables=self._tensor(self._tables[slots, : -(-longest // size)]),
            rows=self._tensor(samples.astype(np.int64)),
            decodes=rows,
            longest_query=1,
            longest_context=longest,
            block_tokens=size,
        )

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


def sampler(vocab_size: int, assignment: Assignment, end_tokens: tuple[int, ...]) -> Sampler:
    """Rank 0's sampler, which may hold sequences to a grammar over the folder's tokens."""
    grammars = Grammars(lambda: Tokenizer.from_folder(assignment.path))
    made = Sampler(vocab_size, assignment.limits.running_sequences, end_tokens, grammars)
    made.warm()
    return made


@dataclass(slots=True)
class _Done:
    """What rank 0 has of a plan so far."""

    tokens: list[int]
    logprobs: list[TokenLogprob | None]
    sample_seconds: float = 0.0
    faulty: tuple[int, ...] = ()
    stuck: tuple[int, ...] = ()
    steps: int = 0

    def sample_from(self, sampler: Sampler, logits: torch.Tensor, slots: list[int]) -> None:
        if not slots:
            return
        began = time.perf_counter()
        sampled = sampler.sample(logits, slots)
        self.tokens += sampled.tokens
        self.logprobs += sampled.logprobs
        self.faulty, self.stuck = sampled.faulty, sampled.stuck
        self.sample_seconds += time.perf_counter() - began

    def result(self, number: int, seconds: float) -> Result:
        told = self.logprobs if any(p is not None for p in self.logprobs) else None
        forward = seconds - self.sample_seconds
        return Result(
            number, self.tokens, told, forward, self.sample_seconds, None, self.faulty, self.steps, self.stuck
        )
