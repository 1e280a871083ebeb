"""Hold the constrained sequences of a batch to their forms, token by token.

To ask whether one token fits costs a microsecond, to find all that fit costs ten: so a matcher is asked about the token
that was drawn, and a mask is made only where that does not fit. Where it did not of late, the next mask is made on a
thread of its own while the forward runs, as are automata.
A matcher that takes too long, or grows beyond its limits, is given up: its sequence is `stuck` and no other waits.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from actors.engine.grammar import Grammars
from cluster.errors import StrataError

# What one sequence may take from all others of its batch. A usual schema takes 1 to 50 us a token over 3,000 tokens of
# vocabulary and some 200 us over 128,000; what takes 1 ms for long is made to.
FIRST_SECONDS = 0.1
TOKEN_SECONDS = 0.001

Line = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint32]
Tokens = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Bound:
    """One sequence and the form that it must keep to. `tokens` is its whole output; `done` of them are matched."""

    spec: str
    tokens: list[int]
    done: int = 0
    matcher: LLMatcher | None = None
    mask: Bits | None = None  # of what may follow `tokens`
    strays: bool = False  # whether the last token drawn did not fit
    seconds: float = 0.0
    stuck: bool = False
    renewed: bool = False

    def begin(self, grammars: Grammars) -> None:
        """Make a matcher that has seen all tokens. What cannot be is stuck."""
        try:
            self.matcher, self.done = grammars.matcher(self.spec), 0
        except (StrataError, ValueError, RecursionError):
            self.stuck = True
            return
        begun = time.perf_counter()
        for token in self.tokens:
            if not self.matcher.is_stopped() and not self.matcher.consume_token(token):
                break
            self.done += 1
        self.stuck = self.done < len(self.tokens) or self.matcher.is_error()
        self._spend(begun)

    def take(self, token: int, ends: frozenset[int], grammars: Grammars) -> bool:
        """Go on with `token` if it fits."""
        matcher = self.matcher
        assert matcher is not None
        if token >= grammars.vocabulary.vocab_size:  # a model may have rows that no token stands for
            fits = False
        elif matcher.is_stopped() and not matcher.is_error():
            fits = token in ends
        else:
            begun = time.perf_counter()
            fits = matcher.try_consume_tokens([token]) == 1
            self._spend(begun)
            if not fits and matcher.is_error() and self._renew(grammars):
                return self.take(token, ends, grammars)
        self.strays = not fits
        if fits:
            self.tokens.append(token)
            self.done += 1
            self.mask = None
        return fits

    def fitting(self, tokens: Sequence[int], vocab_size: int) -> int:
        """How many of `tokens` could be taken one after the other; takes none."""
        matcher = self.matcher
        if matcher is None or self.stuck or matcher.is_stopped():
            return len(tokens)
        begun = time.perf_counter()
        known = next((at for at, token in enumerate(tokens) if token >= vocab_size), len(tokens))
        fits: int = matcher.validate_tokens([int(token) for token in tokens[:known]])
        self._spend(begun)
        return fits

    def look(self, grammars: Grammars, words: int) -> Bits:
        """The mask of what may come next, made if need be."""
        if self.mask is None:
            self.mask = np.zeros(words, np.uint32)
            if not self.stuck:
                self._fill(grammars, self.mask)
        return self.mask

    def _fill(self, grammars: Grammars, mask: Bits) -> None:
        assert self.matcher is not None
        begun = time.perf_counter()
        self.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, 4 * -(-grammars.vocabulary.vocab_size // 32))
        self._spend(begun)
        if self.matcher.is_error() and self._renew(grammars):
            self._fill(grammars, mask)

    def _spend(self, begun: float) -> None:
        self.seconds += time.perf_counter() - begun
        self.stuck |= self.seconds > FIRST_SECONDS + TOKEN_SECONDS * len(self.tokens)

    def _renew(self, grammars: Grammars) -> bool:
        """Once, with an automaton of its own: those of one spec share what they learn, and that has a limit."""
        grammars.forget(self.spec)
        self.stuck = self.stuck or self.renewed
        if not self.stuck:
            self.renewed = True
            self.begin(grammars)
        return not self.stuck


class Masks:
    """The constrained sequences among all, over logits of `vocab_size`."""

    def __init__(self, grammars: Grammars, vocab_size: int, ends: Iterable[int]) -> None:
        self._grammars, self._vocab, self._ends = grammars, vocab_size, frozenset(ends)
        self._bound: dict[int, Bound] = {}
        self._thread = ThreadPoolExecutor(1, "masks")
        self._job: Future[None] | None = None

    def warm(self) -> None:
        """Read the vocabulary now, beside the first steps, and not when the first form is asked for."""
        self._thread.submit(self._read)

    def join(self, slot: int, spec: str, emitted: Sequence[int]) -> None:
        """Hold the sequence in `slot` to `spec`; `emitted` is its output of an earlier life."""
        bound = self._bound[slot] = Bound(spec, list(emitted))
        self._job = self._thread.submit(bound.begin, self._grammars)

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`."""
        bound = self._bound.pop(slot, None)
        if bound is not None:
            self._thread.submit(self._grammars.used, bound.spec, bound.seconds)

    def __contains__(self, slot: int) -> bool:
        return slot in self._bound

    def __bool__(self) -> bool:
        return bool(self._bound)

    def prepare(self, slots: Iterable[int]) -> None:
        """Begin with the masks of those of `slots` that will likely need one."""
        astray = [bound for slot in slots if (bound := self._bound.get(slot)) is not None and bound.strays]
        if astray:
            self._job = self._thread.submit(self._look, astray)

    def settle(self) -> None:
        """Wait for what was begun. One thread does one thing after the other: the last is the last."""
        if self._job is not None:
            self._job.result()
            self._job = None

    def fitting(self, slot: int, tokens: Sequence[int]) -> int:
        """How many of `tokens` the form of `slot` allows next, one after the other."""
        self.settle()
        return self._bound[slot].fitting(tokens, self._grammars.vocabulary.vocab_size)

    def stuck(self, slots: Sequence[int]) -> tuple[int, ...]:
        """The rows of `slots` whose form was given up."""
        get = self._bound.get
        return tuple([row for row, slot in enumerate(slots) if (bound := get(slot)) is not None and bound.stuck])

    def take(self, slots: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Let every sequence go on with its token. The rows where that does not fit, and another may."""
        get, ends, grammars = self._bound.get, self._ends, self._grammars
        astray = []
        for row, slot in enumerate(slots):
            bound = get(slot)
            if bound is None or bound.stuck or bound.take(tokens[row], ends, grammars):
                continue
            if not bound.stuck:
                astray.append(row)
        return astray

    def take_again(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """`take` for tokens that were drawn from masks: one that does not fit is the end of its form."""
        for row in self.take(slots, tokens):
            self._bound[slots[row]].stuck = True
        for slot in slots:
            self._bound[slot].strays = True

    def allowed(self, slot: int) -> Tokens:
        """What may come next; empty where the form was given up."""
        mask = self._bound[slot].look(self._grammars, self._words)
        if self._bound[slot].stuck:
            return np.zeros(0, np.int64)
        some = np.flatnonzero(mask)  # most words of most masks are empty; in a text hardly one is
        few = 2 * len(some) < len(mask)
        bits = np.unpackbits((mask[some] if few else mask).view(np.uint8), bitorder="little")
        tokens: Tokens = np.flatnonzero(bits.view(np.bool_))
        if few:
            tokens = (some[tokens >> 5] << 5) + (tokens & 31)
        return tokens if not len(tokens) or tokens[-1] < self._vocab else tokens[tokens < self._vocab]

    def apply(self, slot: int, line: Line) -> None:
        """Strike out of a row of logits what may not come next. What may is never all struck out."""
        allowed = self.allowed(slot)
        if len(allowed):
            kept = line[allowed]
            line.fill(-np.inf)
            line[allowed] = kept if (kept > -np.inf).any() else 0.0  # the form outranks `min_tokens`

    @property
    def _words(self) -> int:
        return -(-max(self._vocab, self._grammars.vocabulary.vocab_size) // 32)

    def _look(self, astray: list[Bound]) -> None:
        for bound in astray:
            if not bound.stuck:
                bound.look(self._grammars, self._words)

    def _read(self) -> None:
        try:
            _ = self._grammars.vocabulary
        except StrataError:
            return  # whoever asks for a form is told why it cannot be
