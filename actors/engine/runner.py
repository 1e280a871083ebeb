"""One shard's side of a step: from the plan to tensors, through the model, to tokens.

All ranks run the same forward; only rank 0 has a sampler and answers. Knows nothing of who waits or why.

A plan of several steps is a run: it goes on without asking the leader in between, rank 0 tells the others the tokens
that it drew, and what it guesses to come next. It ends early where a sequence may have ended or the leader wants to
plan anew.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from actors.engine.done import Done, Rows, pack_word, unpack_word, word_size
from actors.engine.draft_model import DraftModel
from actors.engine.drafts import Drafter
from actors.engine.lookup import NOTHING
from actors.engine.mirror import Mirror
from actors.engine.plan import Plan, Result
from actors.engine.sampler import Sampler
from actors.models.ahead import Ahead
from actors.models.offload import Offload
from actors.models.parallel import Alone, World

if TYPE_CHECKING:
    from actors.models import Model


# The leader plans by what steps took of late. Where they take far longer now (more rows, a busy machine), a run must
# not keep readers waiting for all of it: well beyond what it plans for, below what anybody notices.
LONGEST_RUN_SECONDS = 0.05


class Runner:
    """Executes plans on one model. Not thread safe: its owner calls it from one thread.

    `speculates`: guess tokens ahead; the same on all ranks. `draft`: a model with a cache of as many blocks, which
    guesses where a text does not repeat itself; of use on rank 0 alone. `offload`: where blocks go that leave
    the cache.
    """

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
        speculates: bool = False,
        draft: "Model | None" = None,
        offload: Offload | None = None,
        ahead: Ahead | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model, self._sampler, self._world, self._clock = model, sampler, world or Alone(), clock
        self._offload, self._ahead = offload, ahead
        self._mirror = Mirror(slots, context_tokens, block_tokens, device)
        self._end_tokens = frozenset(end_tokens)
        self._ends: dict[int, frozenset[int]] = {}  # tokens that may end the sequence in a slot
        self._speculates = speculates
        self._drafter: Drafter | None = None
        self._reader: DraftModel | None = None
        if speculates and sampler is not None:
            if draft is not None:
                self._reader = DraftModel(
                    draft, self._mirror, sampler, vocab_size=model.vocab_size, slots=slots, ends=self._ends, clock=clock
                )
            self._drafter = Drafter(slots, self._reader)

    @torch.inference_mode()
    def execute(self, plan: Plan, interrupted: Callable[[], bool] = lambda: False) -> Result | None:
        """Run the plan's steps. Rank 0 gets the sampled tokens, the others None.

        `interrupted` is asked on rank 0 between steps: whether to leave the rest. Where a later step of a rank without
        others fails, its plan ends before it: planned again, it fails alone.
        """
        done = Done(len(plan.samples))
        if plan.saves or plan.loads:
            self._move(plan, done)
        begun = self._clock()
        self._mirror.take(plan)
        if self._ahead is not None and plan.blocks:
            self._ahead.reached(max(max(blocks) for _, blocks in plan.blocks))
        self._welcome(plan)
        if plan.steps > 1 or (self._speculates and plan.room > 1):
            self._run(plan, done, lambda: self._clock() - begun > LONGEST_RUN_SECONDS or interrupted())
        else:
            self._step(plan, done)
        return None if self._sampler is None else done.result(plan.number, self._clock() - begun)

    def _move(self, plan: Plan, done: Done) -> None:
        assert self._offload is not None
        done.lost = self._offload.save(plan.saves)
        if done.lost and (self._world.size > 1 or any(place in done.lost for place, _ in plan.loads)):
            raise OSError("the store of KV blocks cannot be written to")  # other ranks do not know what is lost
        began = self._clock()
        self._offload.load(plan.loads)
        done.load_seconds = self._clock() - began
        if self._reader is not None:
            self._reader.moved(plan.saves, plan.loads)

    def _welcome(self, plan: Plan) -> None:
        if self._sampler is None:
            return
        for slot in plan.leaves:
            self._sampler.leave(slot)
        for join in plan.joins:
            self._sampler.join(join.slot, join.params, join.seed, join.choice, join.prompt, join.emitted)
            ends = frozenset() if join.params.ignore_eos else self._end_tokens
            self._ends[join.slot] = ends.union(join.params.stop_ids)
            if self._drafter is not None:
                self._drafter.join(join.slot)

    def _step(self, plan: Plan, done: Done) -> None:
        counts, starts = plan.counts.astype(np.int64), plan.starts.astype(np.int64)
        batch = self._mirror.queries(plan.slots, starts, counts, np.cumsum(counts)[plan.samples] - 1)
        if self._sampler is not None and len(plan.samples):
            self._sampler.prepare(plan.slots[plan.samples].tolist())
        logits = self._model.forward(batch)
        done.steps = 1
        if self._sampler is not None and len(plan.samples):
            done.draw(self._sampler, logits, plan.slots[plan.samples].tolist(), list(range(len(plan.samples))))

    def _run(self, plan: Plan, done: Done, interrupted: Callable[[], bool]) -> None:
        """Steps of which every row is a decode that samples."""
        slots, positions = plan.slots.tolist(), plan.starts.astype(np.int64)
        guesses: Rows = [NOTHING] * len(slots)
        while True:
            if self._speculates or done.steps:
                over = self._sampler is not None and self._over(plan, done, slots, interrupted)
                if self._sampler is not None:
                    self._extend(slots, positions, done.last)
                if self._drafter is not None and not over:
                    guesses = self._guess(self._drafter, plan, done, slots, positions)
                over, drawn, guesses = self._agree(over, done, guesses, len(slots))
                if over:
                    return
                if self._sampler is None:
                    self._extend(slots, positions, drawn)
            try:
                self._forward(slots, positions, guesses, done)
            except Exception:
                if done.steps == 0 or self._world.size > 1:
                    raise
                return
            if done.steps == plan.steps and not self._speculates:
                return  # all ranks know that without a word

    def _agree(self, over: bool, done: Done, guesses: Rows, rows: int) -> tuple[bool, Rows, Rows]:
        """What rank 0 says, on all ranks: whether it is over, what was drawn, what is guessed."""
        if self._world.size == 1:
            return over, done.last, guesses
        word = pack_word(over, done.last, guesses, self._speculates) if self._sampler is not None else []
        return unpack_word(self._world.share(word, word_size(rows, self._speculates)), rows, self._speculates)

    def _extend(self, slots: list[int], positions: np.ndarray, drawn: Rows) -> None:
        """Move every slot on by what rank 0 drew."""
        for row, tokens in enumerate(drawn):
            at = positions[row] + 1
            self._mirror.tokens[slots[row], at : at + len(tokens)] = tokens
            positions[row] += len(tokens)

    def _forward(self, slots: list[int], positions: np.ndarray, guesses: Rows, done: Done) -> None:
        began = self._clock()
        counts = np.array([1 + len(guess) for guess in guesses], np.int64)
        names = np.array(slots)
        if int(counts.sum()) == len(slots):
            order = np.arange(len(slots))
            batch = self._mirror.decodes(names, positions)
        else:
            order = np.argsort(counts > 1, kind="stable")  # a batch has its single tokens first
            for row, guess in enumerate(guesses):
                at = positions[row] + 1
                self._mirror.tokens[slots[row], at : at + len(guess)] = guess
            batch = self._mirror.queries(names[order], positions[order], counts[order], None)
        if self._sampler is not None:
            self._sampler.prepare(slots)
        logits = self._model.forward(batch)
        if self._sampler is None:
            done.steps += 1
            return
        firsts = np.empty(len(slots), np.int64)
        firsts[order] = np.cumsum(counts[order]) - counts[order]
        self._check(logits, slots, guesses, firsts, done)
        if self._drafter is not None:
            self._drafter.took(int(counts.sum()), self._clock() - began, int(counts.sum()) - len(slots))
        done.steps += 1

    def _check(self, logits: torch.Tensor, slots: list[int], guesses: Rows, firsts: np.ndarray, done: Done) -> None:
        """Draw a token of every row's first logits, and of the next as long as what was drawn is what was guessed.

        The draws are those that steps of one token each would make, so a guess changes no answer. For guesses that are
        certain of themselves it is also the best rule (Leviathan 2023): one is kept with the chance that it has.
        """
        assert self._sampler is not None
        done.last = [[] for _ in slots]
        alive, depth = list(range(len(slots))), 0
        while alive:
            wanted = torch.from_numpy(firsts[alive] + depth).to(logits.device)
            part = logits if len(alive) == len(logits) else logits.index_select(0, wanted)
            names = [slots[row] for row in alive]
            if depth:
                self._sampler.prepare(names)
            drawn = done.draw(self._sampler, part, names, alive)
            alive = [
                row
                for row, token in zip(alive, drawn, strict=True)
                if depth < len(guesses[row])
                and token == guesses[row][depth]
                and token not in self._ends[slots[row]]
                and not done.faulty
            ]
            depth += 1
        for row, guess in enumerate(guesses):
            if self._drafter is not None and len(guess):
                self._drafter.learn(slots[row], len(guess), len(done.last[row]) - 1)

    def _over(self, plan: Plan, done: Done, slots: list[int], interrupted: Callable[[], bool]) -> bool:
        """On rank 0: whether no step is to follow."""
        if not done.steps:
            return False
        return (
            done.steps == plan.steps
            or bool(done.faulty)
            or interrupted()
            or any(len(tokens) >= room for tokens, room in zip(done.tokens, plan.rooms.tolist(), strict=False))
            or any(tokens[-1] in self._ends[slot] for slot, tokens in zip(slots, done.last, strict=True))
        )

    def _guess(self, drafter: Drafter, plan: Plan, done: Done, slots: list[int], positions: np.ndarray) -> Rows:
        asked, room = {}, []
        for row in drafter.worthy(slots):
            slot = slots[row]
            asked[slot] = self._mirror.tokens[slot, : positions[row] + 1]
            room.append(int(plan.rooms[row]) - len(done.tokens[row]) - 1)
        if not asked:
            return [NOTHING] * len(slots)
        found = drafter.propose(len(slots), asked, room)
        return [self._fitting(drafter, slot, found.get(slot, NOTHING)) for slot in slots]

    def _fitting(self, drafter: Drafter, slot: int, guess: np.ndarray) -> np.ndarray:
        """As much of a guess as the form of its sequence, if it has one, allows."""
        if not len(guess):
            return guess
        assert self._sampler is not None
        fits = self._sampler.fitting(slot, guess.tolist())
        if not fits:
            drafter.learn(slot, len(guess), 0)
        return guess[:fits]
