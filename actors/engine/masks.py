"""Hold the constrained sequences of a batch to their forms, token by token.

To ask a matcher whether one token fits costs it some microseconds, to find all that fit costs ten and more: so it is
asked about the token that was drawn, and a mask is made only where that does not fit. Where a mask will hardly be
spared, it is made on a thread of its own while the forward runs, as are automata: where the last one left few tokens,
and where a filter has to know what is allowed before anything is drawn. What a sequence of the same form found out
before is not asked again: a matcher learns of the tokens that were taken meanwhile when it is asked next.
A matcher that takes too long, or grows beyond its limits, is given up: its sequence is `stuck` and no other waits.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from llguidance import LLMatcher

from actors.deep import deep_thread
from actors.engine.grammar import Grammars
from actors.engine.mask import Bits, Mask
from actors.engine.states import State, States
from cluster.errors import StrataError

# What one sequence may take from all others of its batch, of the processor: on a busy machine the clock runs on while
# nothing is computed. A usual schema takes 1 to 50 us a token over 3,000 tokens of
# vocabulary and some 200 us over 128,000; what takes 1 ms for long is made to.
FIRST_SECONDS = 0.1
TOKEN_SECONDS = 0.001


@dataclass(slots=True, eq=False)
class Bound:
    """One sequence and the form that it must keep to. `tokens` is its whole output; its matcher has seen `done`."""

    spec: str
    tokens: list[int]
    always: bool = False  # whether every step needs its mask
    done: int = 0
    matcher: LLMatcher | None = None
    states: States | None = None
    state: State | None = None  # after `tokens`; None where that is not followed
    mask: Mask | None = None  # of what may follow `tokens`
    few: bool = False  # whether what was allowed was few tokens when a mask was made last
    seconds: float = 0.0
    stuck: bool = False
    slow: bool = False  # to ask about guesses takes longer than they can save
    renewed: bool = False

    def begin(self, grammars: Grammars) -> None:
        """Make a matcher, and let it see the tokens that there are. What cannot be is stuck."""
        try:
            automaton = grammars.automaton(self.spec)
        except (StrataError, ValueError, RecursionError):
            self.stuck = True
            return
        self.matcher, self.done, self.states = automaton.matcher.deep_copy(), 0, automaton.states
        self.state = self.states.begin() if not self.tokens else None
        self.stuck = self.matcher.is_error()
        begun = time.thread_time()
        self._follow()
        self.spend(begun)

    def needing(self) -> bool:
        """Whether a mask that nobody has made yet will likely be needed."""
        return (self.few or self.always) and (self.state is None or self.state.mask is None)

    def walk(self, token: int, ends: frozenset[int], grammars: Grammars) -> bool | None:
        """Go on with `token` if it is known to fit, which costs the matcher nothing. None where nothing is known."""
        state, mask = self.state, self.mask
        if state is not None:
            after = state.steps.get(token)
            if after is not None:
                return after is not False and self._go_on(token, after)
            mask = mask or state.mask
        if mask is None or token in ends:
            return None
        if token >= grammars.vocabulary.vocab_size or not mask.has(token):
            return None if mask.forced else False
        return self._go_on(token, self._learn(grammars, token, fits=True))

    def take(self, token: int, grammars: Grammars, ends: frozenset[int]) -> bool:
        """Go on with `token` if its matcher says that it fits."""
        if token >= grammars.vocabulary.vocab_size:  # a model may have rows that no token stands for
            return False
        matcher = self._caught_up(grammars)
        if matcher is None:
            return False
        if matcher.is_stopped() and not matcher.is_error():
            fits = token in ends
        else:
            fits = matcher.try_consume_tokens([token]) == 1
            if not fits and matcher.is_error() and self._renew(grammars):
                return self.take(token, grammars, ends)
        after = None if matcher.is_error() else self._learn(grammars, token, fits=fits)
        if not fits:
            self.state = after
            return False
        self.done += 1
        return self._go_on(token, after)

    def _learn(self, grammars: Grammars, token: int, *, fits: bool) -> State | None:
        """Tell the other sequences of this form whether `token` fits here. The state after it, as far as it is known.

        That is the same where it does not fit.
        """
        if self.state is None or self.states is None:
            return None
        return self.states.learn(self.state, token, grammars.spelled(token), fits=fits)

    def _go_on(self, token: int, after: State | None) -> bool:
        self.tokens.append(token)
        self.state, self.mask = after, None
        return True

    def free(self, grammars: Grammars) -> bool:
        """Whether what may follow is neither known nor down to one token."""
        if self.mask is not None or (self.state is not None and self.state.mask is not None):
            return False
        matcher = self._caught_up(grammars)
        return matcher is not None and not matcher.compute_ff_tokens()

    def fitting(self, tokens: Sequence[int], grammars: Grammars) -> int:
        """How many of `tokens` could be taken one after the other; takes none."""
        if self.matcher is None or self.stuck:
            return len(tokens)
        at = self.state
        for place, token in enumerate(tokens):
            after = at.steps.get(token) if at is not None else None
            if after is False:
                return place
            at = after
        if at is not None:
            return len(tokens)
        if self.slow:
            return 0
        begun = time.thread_time()
        matcher = self._caught_up(grammars)
        if matcher is None or matcher.is_stopped():
            return len(tokens)
        vocab_size = grammars.vocabulary.vocab_size
        known = next((at for at, token in enumerate(tokens) if token >= vocab_size), len(tokens))
        fits: int = matcher.validate_tokens([int(token) for token in tokens[:known]])
        # not counted against the form: nobody asked for guesses
        self.slow = time.thread_time() - begun > TOKEN_SECONDS * len(tokens)
        return fits

    def look(self, grammars: Grammars, vocab: int) -> Mask:
        """The mask of which of `vocab` tokens may come next, made if need be; empty where the form was given up."""
        mask = self.mask or (self.state.mask if self.state is not None else None) or self._make(grammars, vocab)
        self.mask = Mask(np.zeros_like(mask.bits)) if self.stuck else mask
        self.few = self.mask.few
        return self.mask

    def _make(self, grammars: Grammars, vocab: int) -> Mask:
        known = grammars.vocabulary.vocab_size
        bits = np.zeros(-(-max(vocab, known) // 32), np.uint32)
        forced = not self.stuck and self._fill(grammars, bits, known)
        if vocab < known:
            bits[vocab >> 5] &= np.uint32((1 << (vocab & 31)) - 1)
            bits[(vocab >> 5) + 1 :] = 0
        mask = Mask(bits, forced)
        if not self.stuck and self.state is not None and self.states is not None:
            self.states.learn_mask(self.state, mask)
        return mask

    def _fill(self, grammars: Grammars, bits: Bits, known: int) -> bool:
        """Set the bits of what may come; whether that is one token that is forced."""
        begun = time.thread_time()
        matcher = self._caught_up(grammars)
        if matcher is None:
            return False
        forced = matcher.compute_ff_tokens()  # the first would be alone in the mask, and costs a tenth of it
        if forced:
            bits[forced[0] >> 5] = 1 << (forced[0] & 31)
        else:
            matcher.unsafe_compute_mask_ptr(bits.ctypes.data, 4 * -(-known // 32))
        self.spend(begun)
        return self._fill(grammars, bits, known) if matcher.is_error() and self._renew(grammars) else bool(forced)

    def _caught_up(self, grammars: Grammars) -> LLMatcher | None:
        """The matcher, which has now seen all tokens; None where the form is given up."""
        assert self.matcher is not None
        if self.done < len(self.tokens):
            self._follow()
            if self.matcher.is_error():  # they fitted before: it is at a limit of what it may grow to
                self.stuck = False
                self._renew(grammars)
        return None if self.stuck else self.matcher

    def _follow(self) -> None:
        """Let the matcher see the tokens that it has not. Where one does not fit, the form is stuck."""
        assert self.matcher is not None
        for token in self.tokens[self.done :]:
            if not self.matcher.is_stopped() and not self.matcher.consume_token(token):
                break
            self.done += 1
        self.stuck = self.stuck or self.done < len(self.tokens) or self.matcher.is_error()

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
        self._thread = deep_thread("masks")
        self._job: Future[None] | None = None
        self._new: deque[Bound] = deque()
        self._used: list[tuple[str, float]] = []  # by whom, once the thread is at rest: what is compiled has one owner

    def warm(self) -> None:
        """Read the vocabulary now, beside the first steps, and not when the first form is asked for."""
        self._thread.submit(self._read)

    def join(self, slot: int, spec: str, emitted: Sequence[int], always: bool = False) -> None:
        """Hold the sequence in `slot` to `spec`; `emitted` is its output of an earlier life.

        `always`: no token of it is drawn but from a mask.
        """
        bound = self._bound[slot] = Bound(spec, list(emitted), always)
        self._new.append(bound)
        if self._job is None or self._job.done():  # one that is under way begins with this as well, or `settle` does
            self._job = self._thread.submit(self._begin)

    def leave(self, slot: int) -> None:
        """Forget the sequence in `slot`."""
        bound = self._bound.pop(slot, None)
        if bound is not None and bound.seconds:
            self._used.append((bound.spec, bound.seconds))

    def __contains__(self, slot: int) -> bool:
        return slot in self._bound

    def __bool__(self) -> bool:
        return bool(self._bound)

    def prepare(self, slots: Iterable[int]) -> None:
        """Begin with the masks of those of `slots` that will likely need one."""
        get = self._bound.get
        needing = [bound for slot in slots if (bound := get(slot)) is not None and bound.needing()]
        if needing:
            self._job = self._thread.submit(self._look, needing)

    def settle(self, slots: Iterable[int]) -> None:
        """Wait for what was begun, if one of `slots` is held to a form: others wait for nobody's compilation.

        One thread does one thing after the other: the last is the last.
        """
        if self._job is None or not (self._job.done() or any(slot in self._bound for slot in slots)):
            return
        self._job.result()
        if self._new:
            self._thread.submit(self._begin).result()
        self._job = None
        for spec, seconds in self._used:
            self._grammars.used(spec, seconds)
        self._used.clear()

    def fitting(self, slot: int, tokens: Sequence[int]) -> int:
        """How many of `tokens` the form of `slot` allows next, one after the other."""
        self.settle((slot,))
        return self._bound[slot].fitting(tokens, self._grammars)

    def stuck(self, slots: Sequence[int]) -> tuple[int, ...]:
        """The rows of `slots` whose form was given up."""
        get = self._bound.get
        return tuple([row for row, slot in enumerate(slots) if (bound := get(slot)) is not None and bound.stuck])

    def take(self, slots: Sequence[int], tokens: Sequence[int], again: bool = False) -> list[int]:
        """Let every sequence go on with its token. The rows where that does not fit, and another may."""
        get, astray, now = self._bound.get, [], 0.0
        for row, slot in enumerate(slots):
            bound = get(slot)
            if bound is None or bound.stuck:
                continue
            fits = bound.walk(tokens[row], self._ends, self._grammars)
            if fits is None:
                now = now or time.thread_time()
                fits = bound.take(tokens[row], self._grammars, self._ends)
                now = bound.spend(now)
                if fits and tokens[row] in self._ends:
                    bound.stuck = False  # it is over: what that took is nobody's loss
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
        return not bound.few and not bound.stuck and bound.free(self._grammars)

    def masks(self, slots: Sequence[int]) -> list[Mask]:
        """What may come next in each of `slots`; nothing where a form was given up."""
        return [self._bound[slot].look(self._grammars, self._vocab) for slot in slots]

    def _begin(self) -> None:
        while self._new:
            self._new.popleft().begin(self._grammars)

    def _look(self, needing: list[Bound]) -> None:
        self._begin()
        for bound in needing:
            if not bound.stuck:
                bound.look(self._grammars, self._vocab)

    def _read(self) -> None:
        try:
            _ = self._grammars.vocabulary
        except StrataError:
            return  # whoever asks for a form is told why it cannot be
