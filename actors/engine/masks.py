"""Which tokens the constrained sequences of a batch may take next.

One matcher and one row of bits a slot. Matchers advance and masks are made on a thread of their own, from `prepare`
(before a forward) to the first question after it, so that on a GPU they cost nothing and on a CPU as little as can be.
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

# Processor time that one sequence may take from all others of its batch. A usual schema takes 5 to 50 us a token over
# 3,000 tokens of vocabulary and some 200 us over 128,000; what takes 1 ms for long is made to.
FIRST_SECONDS = 0.1
TOKEN_SECONDS = 0.001
_FEW = 8  # a row with fewer than one in so many tokens allowed is made of those; with more, the others are struck out

Line = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Bound:
    """One sequence and the form that it must keep to. `tokens` is its whole output; `done` of them are matched."""

    spec: str
    tokens: list[int]
    mask: npt.NDArray[np.uint32]
    done: int = 0
    matcher: LLMatcher | None = None
    seconds: float = 0.0
    stuck: bool = False
    fresh: bool = False  # whether `mask` is of `tokens` as they are
    renewed: bool = False

    def work(self, grammars: Grammars) -> None:
        """Match what was taken since and make the next mask. For the one thread that owns matchers."""
        if self.stuck:
            return
        if not self._match(grammars) and not self._renew(grammars):
            self.stuck = True

    def _match(self, grammars: Grammars) -> bool:
        """False where the matcher gave up."""
        if self.matcher is None:
            self.matcher = grammars.matcher(self.spec)
        begun = time.thread_time()
        kept = self._advance(grammars.vocabulary.vocab_size)
        self.seconds += time.thread_time() - begun
        self.stuck = self.seconds > FIRST_SECONDS + TOKEN_SECONDS * len(self.tokens)
        return kept

    def _advance(self, vocab: int) -> bool:
        assert self.matcher is not None
        taken, self.done = self.tokens[self.done :], len(self.tokens)
        if taken and not self._consume(taken):
            return False
        self.matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, 4 * -(-vocab // 32))
        return not self.matcher.is_error()

    def _consume(self, taken: Sequence[int]) -> bool:
        """End tokens change nothing in a form that is complete."""
        assert self.matcher is not None
        for token in taken:
            if not self.matcher.is_stopped() and not self.matcher.consume_token(token):
                return False
        return not self.matcher.is_error()

    def _renew(self, grammars: Grammars) -> bool:
        """Once, with an automaton of its own: those of one spec share what they learn, and it has a limit."""
        grammars.forget(self.spec)
        if self.renewed:
            return False
        self.renewed, self.matcher, self.done = True, None, 0
        return self._match(grammars)


class Masks:
    """The constrained sequences among all, over logits of `vocab_size`."""

    def __init__(self, grammars: Grammars, vocab_size: int) -> None:
        self._grammars, self._vocab = grammars, vocab_size
        self._bound: dict[int, Bound] = {}
        self._thread = ThreadPoolExecutor(1, "masks")
        self._job: Future[None] | None = None

    def warm(self) -> None:
        """Read the vocabulary now, beside the first steps, and not when the first form is asked for."""
        self._thread.submit(self._read)

    def join(self, slot: int, spec: str, emitted: Sequence[int]) -> None:
        """Hold the sequence in `slot` to `spec`; `emitted` is its output of an earlier life."""
        bound = Bound(spec, list(emitted), np.zeros(0, np.uint32))
        self._bound[slot] = bound
        self._start([bound])

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`."""
        self._bound.pop(slot, None)

    def __contains__(self, slot: int) -> bool:
        return slot in self._bound

    def __bool__(self) -> bool:
        return bool(self._bound)

    def prepare(self, slots: Iterable[int]) -> None:
        """Begin with the masks of `slots`; `settle` waits for them."""
        stale = [self._bound[slot] for slot in slots if slot in self._bound and not self._bound[slot].fresh]
        if stale:
            self._start(stale)

    def settle(self, slots: Iterable[int]) -> list[int]:
        """Which of `slots` are constrained, their masks made; those that are stuck allow everything."""
        bound = [slot for slot in slots if slot in self._bound]
        self.prepare(bound)
        if self._job is not None:
            self._job.result()
            self._job = None
        return bound

    def stuck(self, slot: int) -> bool:
        """Whether the form in `slot` was given up."""
        return self._bound[slot].stuck

    def allows(self, slot: int, token: int) -> bool:
        """Whether `token` may come next."""
        return bool(self._bound[slot].mask[token >> 5] >> np.uint32(token & 31) & np.uint32(1))

    def apply(self, slot: int, line: Line) -> None:
        """Strike out of a row of logits what may not come next. What may is never all struck out."""
        mask = self._bound[slot].mask
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little", count=self._vocab)
        if int(np.bitwise_count(mask).sum()) * _FEW < self._vocab:
            allowed = np.flatnonzero(bits)
            kept = line[allowed]
            line.fill(-np.inf)
            line[allowed] = kept if (kept > -np.inf).any() else 0.0  # the form outranks `min_tokens`
        else:
            np.putmask(line, bits == 0, -np.inf)
            if not line.max() > -np.inf:
                line[bits == 1] = 0.0

    def take(self, slot: int, token: int) -> None:
        """The sequence in `slot` goes on with `token`."""
        bound = self._bound[slot]
        bound.tokens.append(token)
        bound.fresh = False

    def _start(self, stale: list[Bound]) -> None:
        for bound in stale:
            bound.fresh = True
        self._job = self._thread.submit(self._work, stale)

    def _work(self, stale: list[Bound]) -> None:
        for bound in stale:
            try:
                if not len(bound.mask):
                    widest = max(self._vocab, self._grammars.vocabulary.vocab_size)
                    bound.mask = np.zeros(-(-widest // 32), np.uint32)
                bound.work(self._grammars)
            except (StrataError, ValueError, RecursionError):
                bound.stuck = True

    def _read(self) -> None:
        try:
            _ = self._grammars.vocabulary
        except StrataError:
            return  # whoever asks for a form is told why it cannot be
