"""Decide what is guessed of the next tokens of sequences, and whether checking it pays.

One forward pass checks all guessed tokens, since rows of one sequence share the weights' way through memory. A guess is
kept as far as it equals what the sampler draws anyway, so that the answer is the very one without guessing.

Guesses come from the text so far (`lookup`), which costs nothing, and where that has none from a draft model, if there
is one, which costs steps of its own. Both are weighed by what they brought each sequence of late and by what steps were
measured to cost. Knows token arrays and times. Knows nothing of models, caches or ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import structlog

from actors.engine.costs import Costs
from actors.engine.lookup import Pairs, lookup

MOST = 7  # tokens guessed at a time
_LENGTHS = (MOST, 4, 2, 1)
_FADE = 0.9  # of what is known of a slot, with every guess
_COMMON, _DRIFT = 0.05, 0.001  # the same of all sequences together
_LEAST = 0.15
_ANSWER = 64.0  # steps that a sequence is thought to take until some have ended
_LENGTHEN = 0.1  # how much of that the last one to end counts
_PRUDENCE = 2.0  # what is read must earn that many times: it is paid at once, and what it brings is a hope
_FORGET = 0.98  # with every step that guessed nothing: what failed once may pay later

log = structlog.get_logger()


class Guesser(Protocol):
    """A draft model over the same slots."""

    def join(self, slot: int) -> None:
        """Another sequence has the slot now."""
        ...

    def seconds(self, slots: int, length: int) -> float:
        """What guesses of `length` tokens for so many slots are thought to take."""
        ...

    def reading(self, slot: int, text: np.ndarray) -> float:
        """Seconds that it will take, before it guesses for the slot, to read what it has not read of `text`."""
        ...

    def guess(self, texts: Mapping[int, np.ndarray], lengths: Mapping[int, int]) -> dict[int, np.ndarray]:
        """At most `lengths[slot]` tokens to follow each text; none is empty, a slot may be left out."""
        ...

    def learn(self, slot: int, right: int) -> None:
        """So many tokens of the slot's last guess came true."""
        ...


@dataclass(slots=True)
class Record:
    """How often guesses of one kind came true of late for one sequence; `start`: thought before any was."""

    start: float = 0.5
    hits: float = 0.0
    misses: float = 0.0

    @property
    def hope(self) -> float:
        """The chance that one more guessed token is right."""
        return (self.hits + self.start) / (self.hits + self.misses + 1.0)

    def learn(self, guessed: int, right: int) -> None:
        """Of `guessed` tokens the first `right` were."""
        self.hits = _FADE * self.hits + right
        self.misses = _FADE * self.misses + (right < guessed)

    def rest(self) -> None:
        """Nothing was guessed in this step."""
        self.hits *= _FORGET
        self.misses *= _FORGET


@dataclass(slots=True)
class Lately:
    """How often guesses of one kind came true for all sequences, so that a new one need not find out for itself."""

    share: float = 0.5

    def learn(self, guessed: int, right: int) -> None:
        """Of `guessed` tokens the first `right` were."""
        self.share += _COMMON * (right / (right + (right < guessed)) - self.share)

    def rest(self) -> None:
        """A step of somebody who is not guessed for."""
        self.share += _DRIFT * (0.5 - self.share)

    def record(self) -> Record:
        """For a new sequence, which is always worth a guess where that is cheap."""
        return Record(min(max(self.share, _LEAST), 1.0 - _LEAST))


@dataclass(slots=True)
class Slot:
    """What is known of the sequence in one slot."""

    past: Record = field(default_factory=Record)  # of guesses from the text so far
    draft: Record = field(default_factory=Record)
    pairs: Pairs = field(default_factory=Pairs)
    drafted: bool = False  # whether its last guess was the draft model's
    steps: int = 0  # that it took so far


class Drafter:
    """Guesses for all slots of one rank."""

    def __init__(self, slots: int, model: Guesser | None = None) -> None:
        self._past, self._drafts = Lately(), Lately()
        self._slots = [Slot() for _ in range(slots)]
        self._costs = Costs()
        self._model = model
        self._answer = _ANSWER  # steps that sequences take of late
        self.guessed = self.right = 0

    def join(self, slot: int) -> None:
        """Another sequence has the slot now."""
        if self._slots[slot].steps:
            self._answer += _LENGTHEN * (self._slots[slot].steps - self._answer)
        self._slots[slot] = Slot(self._past.record(), self._drafts.record())
        if self._model is not None:
            self._model.join(slot)

    def worthy(self, slots: list[int]) -> list[int]:
        """Which of `slots` (by index) one guessed token could pay for at all, as the costs and their past stand."""
        rows = len(slots)
        for slot in slots:
            self._slots[slot].steps += 1
        bar = self._bar(rows)
        if bar >= 1.0:
            return []
        found = []
        for index, slot in enumerate(slots):
            if self._hope(slot) > bar:
                found.append(index)
            else:
                self._rest(slot)
        return found

    def propose(self, rows: int, asked: dict[int, np.ndarray], room: list[int]) -> dict[int, np.ndarray]:
        """Guesses by slot for those of a batch of `rows` that are `asked`, with their tokens so far; none is empty.

        `room`: for each asked, the most tokens that a guess may have.
        """
        rooms = {slot: min(MOST, left) for slot, left in zip(asked, room, strict=True) if left > 0}
        found = self._looked_up(asked, rooms)
        dues = {slot: self._due(slot, asked[slot]) for slot in rooms if slot not in found}
        drafted = self._draftable(rows, dues)
        longest, drafts = self._best(rows, found, {s: rooms[s] for s in drafted}, sum(dues[s] for s in drafted))
        guesses = {slot: guess[:longest] for slot, guess in found.items()} if longest else {}
        if drafts:
            guesses |= self._drafted(
                {slot: asked[slot] for slot in drafted}, {s: min(longest, rooms[s]) for s in drafted}
            )
        for slot in asked:
            state = self._slots[slot]
            state.drafted = slot not in found
            if slot not in guesses:
                self._rest(slot)
        return guesses

    def learn(self, slot: int, guessed: int, right: int) -> None:
        """How far a guess came true."""
        state = self._slots[slot]
        if not state.drafted:
            state.past.learn(guessed, right)
            self._past.learn(guessed, right)
            state.draft.rest()
        else:
            assert self._model is not None
            state.draft.learn(guessed, right)
            self._drafts.learn(guessed, right)
            state.past.rest()
            self._model.learn(slot, right)
        self.guessed += guessed
        self.right += right

    def took(self, rows: int, seconds: float, guessed: int = 0) -> None:
        """A step of decodes with `rows` rows in all, of which `guessed` were guesses."""
        self._costs.learn(rows, seconds, trial=guessed > 0)

    def _rest(self, slot: int) -> None:
        for one in (self._slots[slot].past, self._slots[slot].draft, self._past, self._drafts):
            one.rest()

    def _hope(self, slot: int) -> float:
        state = self._slots[slot]
        return state.past.hope if self._model is None else max(state.past.hope, state.draft.hope)

    def _bar(self, rows: int, drafting: float = 0.0) -> float:
        """The chance of coming true from which one guessed token pays, where it takes `drafting` seconds to make."""
        some, now = max(1, rows // 4), self._costs.of(rows)  # between neighbours there is nothing but noise
        return rows * ((self._costs.of(rows + some) - now) / some + drafting) / now

    def _drafting(self, slots: int, length: int) -> float:
        assert self._model is not None
        return self._model.seconds(slots, length) * self._costs.trust

    def _looked_up(self, asked: dict[int, np.ndarray], rooms: dict[int, int]) -> dict[int, np.ndarray]:
        """Guesses from the past, but where the draft model's came true more often of late."""
        found = {}
        for slot, room in rooms.items():
            state = self._slots[slot]
            if self._model is not None and state.draft.hope > state.past.hope:
                continue
            if state.pairs.repeats(asked[slot]) and len(guess := lookup(asked[slot], room)):
                found[slot] = guess
        return found

    def _drafted(self, texts: Mapping[int, np.ndarray], lengths: Mapping[int, int]) -> dict[int, np.ndarray]:
        """The draft model's guesses. Where it fails it is asked no more: no answer needs it."""
        assert self._model is not None
        try:
            return self._model.guess(texts, lengths)
        except Exception as wrong:  # noqa: BLE001 - what a model, its kernels or the memory do wrong has no common class
            log.warning("draft_failed", reason=f"{type(wrong).__name__}: {wrong}", effect="it guesses no more")
            self._model = None
            return {}

    def _due(self, slot: int, text: np.ndarray) -> float:
        """What reading so far adds to the price of one guess, shared out over the steps that are left in the answer.

        Short answers to long prompts do not earn it.
        """
        if self._model is None:
            return 0.0
        left = max(1.0, self._answer - self._slots[slot].steps)
        return _PRUDENCE * self._model.reading(slot, text) / left

    def _draftable(self, rows: int, dues: Mapping[int, float]) -> list[int]:
        if self._model is None or not dues:
            return []
        drafting = self._drafting(1, 1)
        return [slot for slot, due in dues.items() if self._slots[slot].draft.hope > self._bar(rows, drafting + due)]

    def _best(self, rows: int, found: dict[int, np.ndarray], drafted: dict[int, int], due: float) -> tuple[int, bool]:
        """The longest guess to allow and whether to draft: what makes the most tokens a second. 0: no guess.

        `drafted`: for each slot that a draft model could guess for, the most tokens. `due`: seconds beside its guesses.
        """
        best, drafts, best_rate = 0, False, rows / self._costs.of(rows)
        for most in _LENGTHS if found or drafted else ():
            tokens, more = float(rows), 0
            for slot, guess in found.items():
                length = min(most, len(guess))
                tokens += expected(self._slots[slot].past.hope, length)
                more += length
            rate = tokens / self._costs.of(rows + more)
            if found and rate > best_rate:
                best, drafts, best_rate = most, False, rate
            if not drafted:
                continue
            for slot, room in drafted.items():
                length = min(most, room)
                tokens += expected(self._slots[slot].draft.hope, length)
                more += length
            assert self._model is not None
            rate = tokens / (self._costs.of(rows + more) + self._drafting(len(drafted), most) + due)
            if rate > best_rate:
                best, drafts, best_rate = most, True, rate
        return best, drafts


def expected(hope: float, length: int) -> float:
    """How many of `length` guessed tokens come true, where each does with chance `hope` if those before it did."""
    return length if hope >= 1.0 else hope * (1.0 - hope**length) / (1.0 - hope)
