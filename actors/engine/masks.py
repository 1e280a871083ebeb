"""Hold the constrained sequences of a batch to their forms, token by token.

To ask whether one token fits costs a microsecond or two, to find all that fit costs ten and more: so a matcher is asked
about the token that was drawn, and a mask is made only where that does not fit. Where a mask will hardly be spared, it
is made on a thread of its own while the forward runs, as are automata: where the last one left few tokens, and where
a filter has to know what is allowed before anything is drawn.
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
from actors.engine.logits import Rows
from actors.engine.redraw import FEW, Bits, allowed, counts, strike
from cluster.errors import StrataError

# What one sequence may take from all others of its batch, of the processor: on a busy machine the clock runs on while
# nothing is computed. A usual schema takes 1 to 50 us a token over 3,000 tokens of
# vocabulary and some 200 us over 128,000; what takes 1 ms for long is made to.
FIRST_SECONDS = 0.1
TOKEN_SECONDS = 0.001

Line = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Bound:
    """One sequence and the form that it must keep to. `tokens` is its whole output; `done` of them are matched."""

    spec: str
    tokens: list[int]
    always: bool = False  # whether every step needs its mask
    done: int = 0
    matcher: LLMatcher | None = None
    mask: Bits | None = None  # of what may follow `tokens`
    forced: bool = False  # whether that is the one token that spells it best, though others may begin to spell it, too
    few: bool = False  # whether what was allowed was few tokens when a mask was made last
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
        begun = time.thread_time()
        for token in self.tokens:
            if not self.matcher.is_stopped() and not self.matcher.consume_token(token):
                break
            self.done += 1
        self.stuck = self.done < len(self.tokens) or self.matcher.is_error()
        self.spend(begun)

    def take(self, token: int, ends: frozenset[int], grammars: Grammars, known: int) -> bool:
        """Go on with `token` if it fits. `known` tokens mean something: a model may have rows that none stands for."""
        matcher = self.matcher
        assert matcher is not None
        if token >= known or (self.mask is not None and self._misses(self.mask, token, ends)):
            return False
        if matcher.is_stopped() and not matcher.is_error():
            fits = token in ends
        else:
            fits = matcher.try_consume_tokens([token]) == 1
            if not fits and matcher.is_error() and self._renew(grammars):
                return self.take(token, ends, grammars, known)
        if fits:
            self.tokens.append(token)
            self.done += 1
            self.mask = None
        return fits

    def free(self) -> bool:
        """Whether what may follow is neither known nor down to one token."""
        return self.mask is None and self.matcher is not None and not self.matcher.compute_ff_tokens()

    def _misses(self, mask: Bits, token: int, ends: frozenset[int]) -> bool:
        """Whether the mask rules `token` out without a question. Where one token is forced, others may fit as well."""
        return not self.forced and token not in ends and not int(mask[token >> 5]) >> (token & 31) & 1

    def fitting(self, tokens: Sequence[int], vocab_size: int) -> int:
        """How many of `tokens` could be taken one after the other; takes none."""
        matcher = self.matcher
        if matcher is None or self.stuck or matcher.is_stopped():
            return len(tokens)
        begun = time.thread_time()
        known = next((at for at, token in enumerate(tokens) if token >= vocab_size), len(tokens))
        fits: int = matcher.validate_tokens([int(token) for token in tokens[:known]])
        self.spend(begun)
        return fits

    def look(self, grammars: Grammars, vocab: int) -> Bits:
        """The mask of which of `vocab` tokens may come next, made if need be; empty where the form was given up."""
        if self.mask is None:
            known = grammars.vocabulary.vocab_size
            self.mask = np.zeros(-(-max(vocab, known) // 32), np.uint32)
            if not self.stuck:
                self._fill(grammars, self.mask, known)
            if vocab < known:
                self.mask[vocab >> 5] &= np.uint32((1 << (vocab & 31)) - 1)
                self.mask[(vocab >> 5) + 1 :] = 0
        if self.stuck:
            self.mask[:] = 0
        return self.mask

    def _fill(self, grammars: Grammars, mask: Bits, known: int) -> None:
        assert self.matcher is not None
        begun = time.thread_time()
        forced = self.matcher.compute_ff_tokens()  # the first would be alone in the mask, and costs a tenth of it
        self.forced = bool(forced)
        if forced:
            mask[forced[0] >> 5] = 1 << (forced[0] & 31)
        else:
            self.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, 4 * -(-known // 32))
        self.spend(begun)
        if self.matcher.is_error() and self._renew(grammars):
            self._fill(grammars, mask, known)

    def spend(self, begun: float) -> float:
        """Count what its matcher took since `begun`: the time now."""
        now = time.thread_time()
        self.seconds += now - begun
        if self.seconds > FIRST_SECONDS + TOKEN_SECONDS * len(self.tokens):
            self.stuck = True
        return now

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

    def join(self, slot: int, spec: str, emitted: Sequence[int], always: bool = False) -> None:
        """Hold the sequence in `slot` to `spec`; `emitted` is its output of an earlier life.

        `always`: no token of it is drawn but from a mask.
        """
        bound = self._bound[slot] = Bound(spec, list(emitted), always)
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
        get = self._bound.get
        needing = [bound for slot in slots if (bound := get(slot)) is not None and (bound.few or bound.always)]
        if needing:
            self._job = self._thread.submit(self._look, needing)

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

    def take(self, slots: Sequence[int], tokens: Sequence[int], again: bool = False) -> list[int]:
        """Let every sequence go on with its token. The rows where that does not fit, and another may."""
        get, ends, grammars, known = self._bound.get, self._ends, self._grammars, self._grammars.vocabulary.vocab_size
        astray, now = [], time.thread_time()
        for row, slot in enumerate(slots):
            bound = get(slot)
            if bound is None or bound.stuck:
                continue
            fits = bound.take(tokens[row], ends, grammars, known)
            now = bound.spend(now)
            if fits:
                bound.few = bound.few and again
            elif not bound.stuck:
                astray.append(row)
        return astray

    def take_again(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """`take` for tokens that were drawn from masks: one that does not fit is the end of its form."""
        for row in self.take(slots, tokens, again=True):
            self._bound[slots[row]].stuck = True

    def free(self, slot: int) -> bool:
        """Whether so much may come next, for all that is known, that to ask for a few tokens beats to make a mask."""
        bound = self._bound[slot]
        return not bound.few and not bound.stuck and bound.free()

    def bits(self, slots: Sequence[int]) -> tuple[Bits, Rows]:
        """What may come next, a row of bits for each of `slots`, and how many are set: none if a form was given up."""
        bounds = [self._bound[slot] for slot in slots]
        bits = np.stack([bound.look(self._grammars, self._vocab) for bound in bounds])
        many = counts(bits)
        for bound, few in zip(bounds, (many <= FEW).tolist(), strict=True):
            bound.few = few
        return bits, many

    def apply(self, slot: int, line: Line) -> None:
        """Strike out of a row of logits what may not come next. What may is never all struck out."""
        bound = self._bound[slot]
        mask = bound.look(self._grammars, self._vocab)
        bound.few = int(counts(mask[None])[0]) <= FEW
        if not bound.stuck:
            strike(line, allowed(mask, len(line)))  # the form outranks `min_tokens`

    def _look(self, needing: list[Bound]) -> None:
        for bound in needing:
            if not bound.stuck:
                bound.look(self._grammars, self._vocab)

    def _read(self) -> None:
        try:
            _ = self._grammars.vocabulary
        except StrataError:
            return  # whoever asks for a form is told why it cannot be
