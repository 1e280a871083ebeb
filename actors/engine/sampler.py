"""Turn a step's logits into one token per sequence.

Owns what sampling must remember of each slot: its parameters, its random stream and position, the tokens
it has seen. Knows nothing of text, blocks or why a sequence ends.

A step in which nobody asks for more than the likeliest token is one argmax. Otherwise rows are drawn from as they are,
in vLLM's order (logit_bias and min_tokens, penalties, temperature, min_p, top_k, top_p); only those whose logits are
changed first are copied. Where a constraint does not take the token, it is drawn again from those that the constraint
allows. Rows never meet in any sum, so a token depends on its own row alone.

A row without any usable logit yields the first end token (else 0) and is named in `Sampled.faulty`: the model is broken
there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from actors.engine import chance
from actors.engine.choosing import Wishes, chosen, compiled
from actors.engine.edits import Edits
from actors.engine.grammar import Grammars
from actors.engine.logits import Logits, Rows, likeliest, lines_of
from actors.engine.logprobs import logprobs
from actors.engine.masks import Masks
from actors.messages import SamplingParams, TokenLogprob
from cluster.errors import InvalidRequest

CHUNK = 2**20  # logits that are copied at a time: 4 MiB, of which each core's part stays in its cache
NEXT = 2  # tokens asked about before a mask is made

Keys = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
FIRST = np.uint64(0)  # a key's own stream, and another: the golden ratio's cousin for two dimensions
AGAIN = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True, slots=True)
class Sampled:
    """One step's tokens, in the order of its rows."""

    tokens: list[int]
    logprobs: list[TokenLogprob | None]
    faulty: tuple[int, ...] = ()  # rows that cannot go on: logits all NaN or -inf, or stuck
    stuck: tuple[int, ...] = ()  # rows whose constraint became too complex to follow


class Sampler:
    """The sampling state of `slots` sequences over one vocabulary."""

    def __init__(
        self, vocab_size: int, slots: int, end_tokens: tuple[int, ...], grammars: Grammars | None = None
    ) -> None:
        """Without `grammars` no sequence may be constrained."""
        self.masks = Masks(grammars, vocab_size, end_tokens) if grammars is not None else None
        self._vocab = vocab_size
        self._fallback = next((token for token in end_tokens if token < vocab_size), 0)
        self._special = np.zeros(slots, np.bool_)  # wants more than the likeliest token
        self._random = np.zeros(slots, np.bool_)
        self._narrow = np.zeros(slots, np.bool_)  # draws from a part of the vocabulary
        self._all = np.ones(slots, np.bool_)
        self._edited = np.zeros(slots, np.bool_)  # changes its logits first
        self._keys = np.zeros(slots, np.uint64)
        self._positions = np.zeros(slots, np.int64)  # tokens in the output; kept for special slots
        self._temperature = np.ones(slots, np.float32)
        self._top_k = np.full(slots, vocab_size, np.int64)
        self._top_p = np.ones(slots, np.float64)
        self._min_p = np.zeros(slots, np.float64)
        self._tops = np.full(slots, -1, np.int64)  # -1: no logprobs
        self._edits = Edits(vocab_size, end_tokens)
        self._chunk = max(torch.get_num_threads(), CHUNK // vocab_size)
        self._together = compiled()  # those who want the likeliest token cost nothing beside the others

    def join(
        self,
        slot: int,
        params: SamplingParams,
        seed: int,
        choice: int,
        prompt: Sequence[int],
        emitted: Sequence[int],
    ) -> None:
        """Let a sequence have `slot`; `emitted` are output tokens of an earlier life.

        Prompt tokens are within the vocabulary: admission saw to it. Stop ids and biases beyond it do nothing.
        """
        self.leave(slot)
        if params.constraint is not None and self.masks is None:
            raise InvalidRequest("structured_outputs", "a constraint", "this engine was made without grammars")
        edited = self._edits.join(slot, params, prompt, emitted)
        self._random[slot] = not params.greedy and params.top_k != 1  # of equal maxima top_k 1 means one, too
        self._keys[slot] = chance.key(seed, choice)
        self._positions[slot] = len(emitted)
        self._temperature[slot] = params.temperature
        self._top_k[slot] = params.top_k if 0 < params.top_k < self._vocab else self._vocab
        self._top_p[slot] = params.top_p
        self._min_p[slot] = params.min_p
        self._tops[slot] = -1 if params.logprobs is None else params.logprobs
        filtered = 0 < params.top_k < self._vocab or params.top_p < 1.0 or params.min_p > 0.0
        self._narrow[slot] = self._random[slot] and filtered
        self._edited[slot] = edited
        self._special[slot] = self._random[slot] or edited or params.logprobs is not None
        if params.constraint is not None and self.masks is not None:
            self.masks.join(slot, params.constraint, emitted, always=bool(self._narrow[slot]))

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`."""
        self._special[slot] = False
        self._edits.leave(slot)
        if self.masks is not None:
            self.masks.leave(slot)

    def warm(self) -> None:
        """Read now, beside the first steps, what the first constraint would wait for."""
        if self.masks is not None:
            self.masks.warm()

    def prepare(self, slots: Sequence[int]) -> None:
        """Begin with what the next `sample` of `slots` needs besides logits, beside the forward that makes those."""
        if self.masks:
            self.masks.prepare(slots)

    def sample(self, logits: torch.Tensor, slots: Sequence[int]) -> Sampled:
        """One token for each row of `logits` [rows, vocab], whose sequences have `slots`; remembers what it took."""
        index = np.asarray(slots, dtype=np.int64)
        special = np.flatnonzero(self._special[index])
        found: list[TokenLogprob | None] = [None] * len(index)
        if self.masks:
            self.masks.settle(slots)
        if not len(special):
            tokens, faulty = likeliest(logits, self._fallback)
        else:
            tokens, faulty = self._first(logits, index, special)
        stuck = self._hold(logits, index, tokens) if self.masks else ()
        if len(special):
            self._tell(logits, index, tokens, found)
            self._record(index[special], [tokens[row] for row in special])
        return Sampled(tokens, found, tuple(dict.fromkeys((*faulty, *stuck))), stuck)

    def foresee(self, logits: torch.Tensor, slots: Sequence[int], ahead: int) -> list[int]:
        """What `sample` would take `ahead` tokens from now if it had these logits [rows, vocab]; remembers nothing.

        By the same random numbers, and as if there were no forms: see `fitting`.
        """
        index = np.asarray(slots, dtype=np.int64)
        if not self._special[index].any():
            return likeliest(logits, self._fallback)[0]
        tokens, _ = self._chosen(
            *lines_of(logits, np.arange(len(index))), index, lambda slots: self._wishes(slots, ahead)
        )
        made: list[int] = tokens.tolist()
        return made

    def fitting(self, slot: int, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, the form of the sequence in `slot` allows next."""
        return len(tokens) if not self.masks or slot not in self.masks else self.masks.fitting(slot, tokens)

    def _first(self, logits: torch.Tensor, index: Rows, special: Rows) -> tuple[list[int], tuple[int, ...]]:
        """Every row's token, and the rows that have no number."""
        if self._together and logits.device.type == "cpu":
            taken, empty = self._chosen(*lines_of(logits, np.arange(len(index))), index, self._wishes, self._narrow)
            return taken.tolist(), tuple(empty)
        tokens, faulty = likeliest(logits, self._fallback)
        taken, _ = self._chosen(*lines_of(logits, special), index[special], self._wishes, self._narrow)
        for row, token in zip(special.tolist(), taken.tolist(), strict=True):
            tokens[row] = token
        return tokens, faulty

    def _hold(self, logits: torch.Tensor, index: Rows, tokens: list[int]) -> tuple[int, ...]:
        """Draw again, from what is allowed, where a token does not fit. The rows that no token would help.

        To draw from all and, if that does not fit, from what does, is to draw from what fits (rejection sampling), as
        long as the second draw knows nothing of the first: it has a uniform number of its own.
        """
        masks, slots = self.masks, index.tolist()
        assert masks is not None
        astray = masks.take(slots, tokens)
        if astray:
            lines, at = lines_of(logits, np.array(astray, np.int64))
            kept = self._next_likeliest(lines, at, slots, astray, tokens)
            left = np.array([row not in kept for row in astray], np.bool_)
            again = [row for row in astray if row not in kept]
            chosen, _ = self._chosen(lines, at[left], index[again], self._wishes_again, self._all)
            for row, token in zip(again, chosen.tolist(), strict=True):
                tokens[row] = token
            masks.take_again([slots[row] for row in again], [tokens[row] for row in again])
        return masks.stuck(slots)

    def _next_likeliest(
        self, lines: Logits, at: Rows, slots: list[int], astray: list[int], tokens: list[int]
    ) -> frozenset[int]:
        """Of rows that want the likeliest token, those of which one of the next likeliest fitted: it is their token.

        The first that fits, in order, is the likeliest of all that fit.
        """
        assert self.masks is not None
        kept = []
        for place, row in zip(at.tolist(), astray, strict=True):
            if self._random[slots[row]] or self._edited[slots[row]] or not self.masks.free(slots[row]):
                continue
            line = lines[place].copy()
            for _ in range(NEXT):
                line[tokens[row]] = -np.inf
                best = int(line.argmax())
                if not np.isfinite(line[best]):
                    break
                tokens[row] = best
                if not self.masks.take([slots[row]], [best]):
                    kept.append(row)
                    break
        return frozenset(kept)

    def _chosen(
        self, lines: Logits, at: Rows, slots: Rows, wishes: Callable[[Rows], Wishes], held: Flags | None = None
    ) -> tuple[Rows, list[int]]:
        """Tokens by the rows `at`, and which of these have no number. `held`: the slots whose forms have a say.

        They have where a first draw did not fit, and before a filter, which comes last.
        """
        tokens = np.empty(len(at), np.int64)
        bound = self._bound(slots, held)
        edited = self._edited[slots]
        empty: list[int] = []
        for form in (False, True):
            rows = np.flatnonzero((bound == form) & ~edited)
            if len(rows):
                tokens[rows], none = self._by_form(lines, at[rows], slots[rows], wishes, form)
                empty += rows[none].tolist()
            for rows in self._chunks(np.flatnonzero((bound == form) & edited)):
                work = lines[at[rows]]
                self._edits.apply(work, slots[rows], self._positions)
                tokens[rows], none = self._by_form(work, np.arange(len(rows)), slots[rows], wishes, form)
                empty += rows[none].tolist()
        # a form or a ban may have taken the last number of a row that had some
        return tokens, [row for row in empty if not (lines[at[row]] > -np.inf).any()]

    def _by_form(
        self, lines: Logits, at: Rows, slots: Rows, wishes: Callable[[Rows], Wishes], form: bool
    ) -> tuple[Rows, Rows]:
        masks = self.masks.masks(slots.tolist()) if form and self.masks is not None else None
        return chosen(lines, at, wishes(slots), self._fallback, masks)

    def _bound(self, slots: Rows, held: Flags | None) -> Flags:
        if not self.masks or held is None:
            return np.zeros(len(slots), np.bool_)
        return np.array([slot in self.masks for slot in slots.tolist()], np.bool_) & held[slots]

    def _wishes(self, slots: Rows, ahead: int = 0, stream: np.uint64 = FIRST) -> Wishes:
        uniform = chance.uniforms(self._keys[slots] ^ stream, self._positions[slots] + ahead)
        return Wishes(
            self._random[slots], self._temperature[slots], self._top_k[slots], self._top_p[slots], self._min_p[slots],
            uniform,
        )  # fmt: skip

    def _wishes_again(self, slots: Rows) -> Wishes:
        return self._wishes(slots, stream=AGAIN)

    def _chunks(self, rows: Rows) -> Iterator[Rows]:
        for start in range(0, len(rows), self._chunk):
            yield rows[start : start + self._chunk]

    def _tell(self, logits: torch.Tensor, index: Rows, tokens: list[int], found: list[TokenLogprob | None]) -> None:
        """Put the logprobs of those who want them into their places."""
        rows = np.flatnonzero(self._tops[index] >= 0)
        if len(rows):
            told = logprobs(*lines_of(logits, rows), [tokens[row] for row in rows], self._tops[index[rows]].tolist())
            for row, logprob in zip(rows.tolist(), told, strict=True):
                found[row] = logprob

    def _record(self, slots: Rows, tokens: list[int]) -> None:
        self._positions[slots] += 1
        self._edits.record(slots, tokens)
