"""Guesses by a small model that reads along.

Owns the draft model's cache and how much of it is right. It has as many blocks as the model's own and uses the same
block tables, so that it needs no plan: what one slot left in a block, another that finds the block as its prefix can
use. It may lag behind, as it does while nothing is guessed, and catches up with its next guess.

It draws by the same random numbers as the sampler will for these positions. Then it is right wherever the models
roughly agree, and not only where two independent draws meet: a coupling without communication (Daliri, Musco and Suresh
2024, arXiv:2408.07978), here through the inverse of the CDF, which is how the sampler draws. It is tight where one
token holds most of both distributions, looser where many share them. The sampler draws what it would draw without it.

Only rank 0 has one: what it guesses goes to the other ranks in the word that they wait for anyway.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from actors.engine import blocks as prefix
from actors.engine.blocks import Moves
from actors.engine.costs import Costs
from actors.engine.mirror import Mirror
from actors.engine.sampler import Sampler
from actors.models.batch import Batch

if TYPE_CHECKING:
    from actors.models import Model

CATCH_UP_TOKENS = 512  # in one step, of sequences that it left alone for a while; what lags further guesses later
_AT_ONCE = 2  # tokens that a sequence lags behind where its last guess was right throughout
_WARM_UP = 3  # steps whose times tell nothing of later ones
_LEARN = 0.2  # how much of what reading costs the last time counts
_UNKNOWN = -1
_SALT = "draft"  # the model's own blocks keep tenants apart, and these follow them


class DraftModel:
    """A model that guesses for the slots of `mirror` what `sampler` will draw."""

    def __init__(
        self,
        model: "Model",
        mirror: Mirror,
        sampler: Sampler,
        *,
        vocab_size: int,
        slots: int,
        ends: Mapping[int, frozenset[int]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`model` has its cache; `vocab_size`: the sampler's; `ends`: tokens that end the sequence in a slot."""
        self._model, self._mirror, self._sampler, self._ends, self._clock = model, mirror, sampler, ends, clock
        self._vocab = vocab_size
        self._costs = Costs(unknown=0.0)
        self._steps = 0
        self._token_seconds = 0.0  # of one token among many that are read at once; nothing until that was measured
        self._read = np.full(slots, _UNKNOWN, np.int64)  # leading tokens of a slot whose keys and values are right
        self._ahead: dict[int, int] = {}  # tokens of the slot's last guess that are read already
        self._digests: list[list[bytes]] = [[] for _ in range(slots)]  # of each slot's full blocks that are read
        self._kept: dict[int, bytes] = {}  # what a block holds: the digest of all tokens up to its end
        self._stored: dict[int, bytes] = {}  # the same of the places that blocks go to which leave the cache

    def join(self, slot: int) -> None:
        """Another sequence has the slot now."""
        self._read[slot] = _UNKNOWN
        self._digests[slot] = []
        self._ahead.pop(slot, None)

    def moved(self, saves: Moves, loads: Moves) -> None:
        """Blocks were copied out, (block, place), and then in, (place, block), whatever it had in them."""
        for block, place in saves:
            _copy(self._kept, block, self._stored, place)
        for place, block in loads:
            _copy(self._stored, place, self._kept, block)

    def learn(self, slot: int, right: int) -> None:
        """So many tokens of the slot's last guess came true."""
        self._read[slot] += min(right, self._ahead.pop(slot, 0))

    def seconds(self, slots: int, length: int) -> float:
        """What guesses of `length` tokens for so many slots are thought to take, as steps took so far."""
        return length * self._costs.of(slots)

    def reading(self, slot: int, text: np.ndarray) -> float:
        """Seconds that catching up with `text` will take; none where it lags by no more than one guess leaves."""
        lag = len(text) - self._known(slot, text)
        return lag * self._token_seconds if lag > _AT_ONCE else 0.0

    def guess(self, texts: Mapping[int, np.ndarray], lengths: Mapping[int, int]) -> dict[int, np.ndarray]:
        """Token by token for all slots at once, as far as each wants it or until its answer would end.

        A slot is left out whose answer ends at once, that lags too far behind or whose text is too long for the model.
        """
        texts = {slot: text for slot, text in texts.items() if len(text) + lengths[slot] <= self._model.context_tokens}
        found: dict[int, list[int]] = {slot: [] for slot in texts}
        live, depth = list(texts), 0
        while live:
            began = self._clock()
            live, rows, logits = self._caught_up(texts, lengths) if depth == 0 else self._next(live, texts, depth)
            going = []
            for slot, token in zip(live, self._sampler.foresee(logits, live, depth) if live else (), strict=True):
                if token in self._ends.get(slot, ()):
                    continue
                self._mirror.tokens[slot, len(texts[slot]) + depth] = token
                found[slot].append(token)
                if depth + 1 < lengths[slot]:
                    going.append(slot)
            self._learn_cost(rows, self._clock() - began)
            live, depth = going, depth + 1
        self._ahead.update({slot: len(tokens) - 1 for slot, tokens in found.items() if tokens})
        return {slot: np.array(tokens, np.int64) for slot, tokens in found.items() if tokens}

    def _caught_up(
        self, texts: Mapping[int, np.ndarray], lengths: Mapping[int, int]
    ) -> tuple[list[int], int, torch.Tensor]:
        """Read what was not read yet. The slots that have read all, how many rows it took, and their logits."""
        budget, parts = CATCH_UP_TOKENS, []
        for slot, text in texts.items():
            start = min(self._known(slot, text), len(text) - 1)
            count = len(text) - start
            if count > _AT_ONCE:
                count = min(count, budget)
                budget -= count
            if count:
                parts.append((count > 1, slot, start, count))
                self._overwrite(slot, start, len(text) + lengths[slot])
        parts.sort()  # a batch has its single tokens first
        slots, starts, counts = (np.array(part, np.int64) for part in list(zip(*parts, strict=True))[1:])
        whole = [row for row, (_, slot, start, count) in enumerate(parts) if start + count == len(texts[slot])]
        logits = self._forward(self._mirror.queries(slots, starts, counts, np.cumsum(counts)[whole] - 1))
        for _, slot, start, count in parts:
            self._keep(slot, texts[slot], start + count)
        return [parts[row][1] for row in whole], int(counts.sum()), logits

    def _next(
        self, live: list[int], texts: Mapping[int, np.ndarray], depth: int
    ) -> tuple[list[int], int, torch.Tensor]:
        positions = np.array([len(texts[slot]) + depth - 1 for slot in live], np.int64)
        return live, len(live), self._forward(self._mirror.decodes(np.array(live, np.int64), positions))

    def _forward(self, batch: Batch) -> torch.Tensor:
        """Logits in the sampler's vocabulary: models of one tokenizer may have more rows than it has tokens."""
        own = self._model.vocab_size
        if own < self._vocab:
            batch = replace(batch, tokens=batch.tokens.clamp(max=own - 1))
        logits = self._model.forward(batch)
        if own < self._vocab:
            return torch.nn.functional.pad(logits, (0, self._vocab - own), value=float("-inf"))
        return logits if own == self._vocab else logits[:, : self._vocab].contiguous()

    def _known(self, slot: int, text: np.ndarray) -> int:
        """How many leading tokens are read; of a new sequence, what its blocks still hold of another that began so."""
        if self._read[slot] == _UNKNOWN:
            digests, size = list[bytes](), self._mirror.block_tokens
            prefix.extend(digests, text.tolist(), size, _SALT)
            blocks = self._mirror.blocks(slot)
            held = 0
            while held < len(digests) and self._kept.get(int(blocks[held])) == digests[held]:
                held += 1
            self._digests[slot] = digests[:held]
            self._read[slot] = held * size
        return int(self._read[slot])

    def _overwrite(self, slot: int, start: int, end: int) -> None:
        """What the blocks of these positions held is gone."""
        size = self._mirror.block_tokens
        for block in self._mirror.blocks(slot)[start // size : -(-end // size)].tolist():
            self._kept.pop(block, None)

    def _keep(self, slot: int, text: np.ndarray, end: int) -> None:
        """The slot's tokens up to `end` are read."""
        size, digests, blocks = self._mirror.block_tokens, self._digests[slot], self._mirror.blocks(slot)
        first = len(digests)
        prefix.extend(digests, text[:end].tolist(), size, _SALT)
        for index in range(first, len(digests)):
            self._kept[int(blocks[index])] = digests[index]
        self._read[slot] = end
        self._ahead.pop(slot, None)

    def _learn_cost(self, rows: int, took: float) -> None:
        self._steps += 1
        if self._steps <= _WARM_UP:
            return
        if rows <= _AT_ONCE * len(self._read):
            self._costs.learn(rows, took)
        else:
            each = took / rows
            self._token_seconds += (_LEARN if self._token_seconds else 1.0) * (each - self._token_seconds)


def _copy(source: Mapping[int, bytes], start: int, target: dict[int, bytes], end: int) -> None:
    if start in source:
        target[end] = source[start]
    else:
        target.pop(end, None)
