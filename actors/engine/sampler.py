"""Turn a step's logits into one token per sequence.

Owns what sampling must remember of each slot: its parameters, its random stream and position, the tokens
it has seen. Knows nothing of text, blocks or why a sequence ends.

A step in which nobody asks for more than the likeliest token is one argmax. Otherwise only the rows that
ask are copied, changed in vLLM's order (logit_bias and min_tokens, penalties, temperature, min_p, top_k,
top_p) and drawn from. Where a constraint does not take the token, it is drawn again from those that the constraint
allows. Rows never meet in any sum, so a token depends on its own row alone.

A row without any usable logit yields the first end token (else 0) and is named in `Sampled.faulty`: the model is broken
there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from actors.engine import chance, filters, redraw
from actors.engine.edits import Edits
from actors.engine.grammar import Grammars
from actors.engine.logits import Logits, Rows, clean, host, likeliest
from actors.engine.logprobs import logprobs
from actors.engine.masks import Masks
from actors.messages import SamplingParams, TokenLogprob
from cluster.errors import InvalidRequest

CHUNK = 2**18  # weights drawn from at a time: 1 MiB stays in a core's cache
NEXT = 2  # tokens asked about before a mask is made

Keys = npt.NDArray[np.uint64]
AGAIN = np.uint64(0xD1B54A32D192ED03)  # another stream than the key's own; the golden ratio's cousin for two dimensions


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
        self._plain = np.zeros(slots, np.bool_)  # asks for nothing but a temperature
        self._keys = np.zeros(slots, np.uint64)
        self._positions = np.zeros(slots, np.int64)  # tokens in the output; kept for special slots
        self._temperature = np.ones(slots, np.float32)
        self._top_k = np.full(slots, vocab_size, np.int64)
        self._top_p = np.ones(slots, np.float64)
        self._min_p = np.zeros(slots, np.float64)
        self._tops = np.full(slots, -1, np.int64)  # -1: no logprobs
        self._edits = Edits(vocab_size, end_tokens, self._fallback)
        columns = -(-vocab_size // chance.LANES)
        self._chunk = max(1, CHUNK // vocab_size)
        self._weights = np.zeros((self._chunk, chance.LANES * columns), np.float32)

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
        self._plain[slot] = not edited and params.logprobs is None and not self._narrow[slot]
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
        tokens, faulty = likeliest(logits, self._fallback)
        found: list[TokenLogprob | None] = [None] * len(tokens)
        if self.masks:
            self.masks.settle()
        self._special_rows(logits, index, special, tokens, found)
        stuck = self._hold(logits, index, tokens, found) if self.masks else ()
        if len(special):
            self._record(index[special], [tokens[row] for row in special])
        return Sampled(tokens, found, (*faulty, *stuck), stuck)

    def foresee(self, logits: torch.Tensor, slots: Sequence[int], ahead: int) -> list[int]:
        """What `sample` would take `ahead` tokens from now if it had these logits [rows, vocab]; remembers nothing.

        By the same random numbers, and as if there were no forms: see `fitting`.
        """
        index = np.asarray(slots, dtype=np.int64)
        tokens, _ = likeliest(logits, self._fallback)
        special = np.flatnonzero(self._special[index])
        for start in range(0, len(special), self._chunk):
            rows = special[start : start + self._chunk]
            work = host(logits[torch.from_numpy(rows)])
            clean(work, self._fallback)
            self._edits.apply(work, index[rows], self._positions)
            for row, token in zip(rows, self._taken(work, index[rows], self._keys[index[rows]], ahead), strict=True):
                tokens[row] = int(token)
        return tokens

    def fitting(self, slot: int, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, the form of the sequence in `slot` allows next."""
        return len(tokens) if not self.masks or slot not in self.masks else self.masks.fitting(slot, tokens)

    def _hold(
        self, logits: torch.Tensor, index: Rows, tokens: list[int], found: list[TokenLogprob | None]
    ) -> tuple[int, ...]:
        """Draw again, from what is allowed, where a token does not fit. The rows that no token would help.

        To draw from all and, if that does not fit, from what does, is to draw from what fits (rejection sampling), as
        long as the second draw knows nothing of the first: it has a uniform number of its own.
        """
        masks, slots = self.masks, index.tolist()
        assert masks is not None
        astray = masks.take(slots, tokens)
        if astray:
            plain = [row for row in astray if self._plain[slots[row]]]
            kept = self._next_likeliest(logits, slots, plain, tokens)
            plain = [row for row in plain if row not in kept]
            self._among(logits, slots, plain, tokens)
            special = np.array([row for row in astray if not self._plain[slots[row]]], np.int64)
            self._special_rows(logits, index, special, tokens, found, again=True)
            again = [row for row in astray if row not in kept]
            masks.take_again([slots[row] for row in again], [tokens[row] for row in again])
        return masks.stuck(slots)

    def _next_likeliest(
        self, logits: torch.Tensor, slots: list[int], astray: list[int], tokens: list[int]
    ) -> frozenset[int]:
        """Of rows that want the likeliest token, those of which one of the next likeliest fitted: it is their token.

        The first that fits, in order, is the likeliest of all that fit.
        """
        assert self.masks is not None
        kept = []
        for row in astray:
            if self._random[slots[row]] or not self.masks.free(slots[row]):
                continue
            line = host(logits[row].clone())
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

    def _among(self, logits: torch.Tensor, slots: list[int], plain: list[int], tokens: list[int]) -> None:
        """A second draw for sequences that ask for nothing but a temperature, from the tokens that fit."""
        if not plain:
            return
        assert self.masks is not None
        rows = np.array(plain)
        names = np.array([slots[row] for row in plain])
        lines, at = (
            (host(logits), rows) if _shared(logits) else (host(logits[torch.from_numpy(rows)]), np.arange(len(rows)))
        )
        uniform = chance.uniforms(self._keys[names] ^ AGAIN, self._positions[names])
        wishes = redraw.Wishes(self._random[names], self._temperature[names], uniform)
        chosen = redraw.drawn(lines, at, *self.masks.bits(names.tolist()), wishes, self._fallback)
        for row, token in zip(plain, chosen.tolist(), strict=True):
            tokens[row] = token

    def _special_rows(
        self,
        logits: torch.Tensor,
        index: Rows,
        special: Rows,
        tokens: list[int],
        found: list[TokenLogprob | None],
        again: bool = False,
    ) -> None:
        """Put the tokens and logprobs of rows that ask for more into their places."""
        for start in range(0, len(special), self._chunk):
            rows = special[start : start + self._chunk]
            work = host(logits[torch.from_numpy(rows)] if len(rows) < len(logits) else logits.clone())
            for row, token, logprob in zip(rows, *self._drawn(work, index[rows], again), strict=True):
                tokens[row], found[row] = token, logprob

    def _drawn(self, work: Logits, slots: Rows, again: bool) -> tuple[list[int], list[TokenLogprob | None]]:
        """Tokens and logprobs of rows that ask for more; `work` is theirs to change."""
        clean(work, self._fallback)
        telling = np.flatnonzero(self._tops[slots] >= 0)
        raw = work[telling]
        self._edits.apply(work, slots, self._positions)
        self._restrict(work, slots, again)
        keys = self._keys[slots] ^ AGAIN if again else self._keys[slots]
        taken = self._taken(work, slots, keys)
        tokens: list[int] = taken.tolist()
        found: list[TokenLogprob | None] = [None] * len(tokens)
        if len(telling):
            told = logprobs(raw, taken[telling].tolist(), self._tops[slots[telling]].tolist())
            for row, logprob in zip(telling, told, strict=True):
                found[row] = logprob
        return tokens, found

    def _taken(self, work: Logits, slots: Rows, keys: Keys, ahead: int = 0) -> Rows:
        """The token of each row; `work` is ours to change."""
        drawing = np.flatnonzero(self._random[slots])
        if len(drawing) == len(work):
            return self._draw(work, slots, keys, ahead)
        taken: Rows = work.argmax(axis=1)
        taken[drawing] = self._draw(work[drawing], slots[drawing], keys[drawing], ahead)
        return taken

    def _restrict(self, work: Logits, slots: Rows, again: bool) -> None:
        """Strike out what constraints forbid: where a first draw did not fit, and before a filter, which comes last."""
        if self.masks:
            for row, slot in enumerate(slots.tolist()):
                if slot in self.masks and (again or self._narrow[slot]):
                    self.masks.apply(slot, work[row])

    def _draw(self, work: Logits, slots: Rows, keys: Keys, ahead: int = 0) -> Rows:
        """A random token for each row from its filtered distribution; `work` is ours to change."""
        with np.errstate(over="ignore"):  # what overflows to -inf had no weight anyway
            work -= work.max(axis=1, keepdims=True)
            work /= self._temperature[slots, None]
        weights = self._weights[: len(work)]
        np.exp(work, out=weights[:, : self._vocab])
        top_k, top_p, min_p = self._top_k[slots], self._top_p[slots], self._min_p[slots]
        asking = np.flatnonzero((top_k < self._vocab) | (top_p < 1.0) | (min_p > 0.0))
        if len(asking) == len(work):
            filters.restrict(weights, work, top_k, top_p, min_p)
        elif len(asking):
            part = weights[asking]
            filters.restrict(part, work[asking], top_k[asking], top_p[asking], min_p[asking])
            weights[asking] = part
        return chance.draw(weights, chance.uniforms(keys, self._positions[slots] + ahead))

    def _record(self, slots: Rows, tokens: list[int]) -> None:
        self._positions[slots] += 1
        self._edits.record(slots, tokens)


def _shared(logits: torch.Tensor) -> bool:
    """Whether `host` gives the logits themselves, and no copy."""
    return logits.device.type == "cpu" and logits.dtype == torch.float32
