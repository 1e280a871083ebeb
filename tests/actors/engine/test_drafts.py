"""Guessing: what is looked up, and when it is left."""

from collections.abc import Mapping
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.costs import Costs, rounded
from actors.engine.drafts import MOST, Drafter, Record, expected
from actors.engine.lookup import Pairs, lookup


def found(tokens: list[int], most: int = 4) -> list[int]:
    return [int(token) for token in lookup(np.array(tokens, np.int64), most)]


def test_what_followed_before_is_the_guess() -> None:
    assert found([1, 2, 3, 4, 5, 9, 1, 2]) == [3, 4, 5, 9]


def test_the_longest_match_wins_over_the_latest() -> None:
    assert found([7, 1, 2, 50, 8, 1, 2, 60, 7, 1, 2], 1) == [50]


def test_one_token_alone_is_no_match() -> None:
    assert found([2, 5, 6, 7, 1, 2]) == []


def test_a_repetition_fills_the_guess() -> None:
    assert found([1, 2, 1, 2, 1, 2, 1, 2], 4) == [1, 2, 1, 2]


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 9))
def test_a_guess_is_a_piece_of_the_past_after_the_same_two_tokens(tokens: list[int], most: int) -> None:
    guess = found(tokens, most)
    assert len(guess) <= most
    if guess:
        text = tuple(tokens)
        pieces = [text[at : at + 2 + len(guess)] for at in range(len(text))]
        assert (*text[-2:], *guess) in pieces


def test_hope_follows_what_came_true_and_returns_to_one_half() -> None:
    slot = Record()
    assert slot.hope == 0.5
    for _ in range(20):
        slot.learn(4, 4)
    assert slot.hope > 0.95
    for _ in range(40):
        slot.learn(4, 0)
    assert slot.hope < 0.15
    for _ in range(400):
        slot.rest()
    assert slot.hope == pytest.approx(0.5, abs=0.05)


def test_expected_tokens() -> None:
    assert expected(1.0, 4) == 4
    assert expected(0.5, 2) == pytest.approx(0.75)
    assert expected(0.0, 4) == 0.0


def test_costs_between_and_beyond_what_was_measured() -> None:
    costs = Costs()
    costs.learn(1, 1.0)
    assert 1.0 < costs.of(8) < 1.5
    costs.learn(7, 3.0, trial=True)
    assert costs.of(7) < 3.0  # one time alone may be of a bad moment
    for _ in range(50):
        costs.learn(7, 3.0, trial=True)
    assert costs.of(4) == pytest.approx(2.0, rel=0.01)
    assert costs.of(7) == pytest.approx(3.0, rel=0.01)


def drafter(*costs: tuple[int, float]) -> Drafter:
    made = Drafter(8)
    for rows, seconds in costs * 50:
        made.took(rows, seconds)
    return made


def guessed(made: Drafter, room: int = 100) -> int:
    """How many tokens are guessed for the one sequence of a batch."""
    return sum(map(len, made.propose(1, {0: REPEATING}, [room]).values()))


REPEATING = np.array([1, 2, 3, 4, 5, 6, 7, 8] * 3, np.int64)


def test_cheap_rows_are_guessed_for_to_the_full() -> None:
    made = drafter((1, 1.0), (8, 1.1))
    for _ in range(10):
        made.learn(0, 4, 4)
    assert guessed(made) == MOST


def test_rows_that_cost_as_much_as_steps_are_not() -> None:
    made = drafter((1, 1.0), (2, 2.0), (8, 8.0))
    assert guessed(made) == 0
    assert made.worthy([0]) == []


def test_a_sequence_that_never_guesses_right_is_left_alone() -> None:
    made = drafter((1, 1.0), (2, 1.3), (3, 1.5), (8, 2.0))
    for _ in range(20):
        made.learn(0, 4, 0)
    assert made.worthy([0]) == []
    assert guessed(made) == 0
    for _ in range(200):
        assert len(made.worthy([0])) <= 1
    assert made.worthy([0]) == [0], "its text may have turned: now and then it is tried"
    for _ in range(20):
        made.learn(0, 4, 0)
    made._past.share = 0.5
    made.join(0)
    assert made.worthy([0]) == [0]
    assert guessed(made) > 0


def test_a_new_sequence_starts_from_what_others_had() -> None:
    made = drafter((1, 1.0), (8, 1.1))
    for _ in range(200):
        made.learn(0, 4, 4)
    made.join(1)
    assert made._slots[1].past.hope == pytest.approx(0.85)
    for _ in range(200):
        made.learn(0, 4, 0)
    made.join(1)
    assert made._slots[1].past.hope == pytest.approx(0.15)
    for _ in range(5000):
        made._rest(0)
    made.join(1)
    assert made._slots[1].past.hope == pytest.approx(0.5, abs=0.02)


def test_room_limits_a_guess() -> None:
    made = drafter((1, 1.0), (8, 1.0))
    assert guessed(made, room=2) == 2
    assert guessed(made, room=0) == 0


@given(st.lists(st.integers(0, 2), min_size=2, max_size=60), st.integers(1, 30))
def test_pairs_are_remembered_however_the_text_grows(tokens: list[int], step: int) -> None:
    slot, text = Pairs(), np.array(tokens, np.int64)
    for size in [*range(1, len(tokens), step), len(tokens)]:
        before = list(pairwise(tokens[: size - 1]))
        assert slot.repeats(text[:size]) == (size > 2 and tuple(tokens[size - 2 : size]) in before)


def test_a_bad_moment_does_not_make_few_rows_dearer_than_many() -> None:
    costs = Costs()
    costs.learn(1, 1.0)
    costs.learn(2, 9.0)
    for _ in range(50):
        costs.learn(4, 1.2)
    assert costs.of(2) <= 1.2 + 1e-6
    assert costs.of(3) <= 1.2 + 1e-6


def test_beyond_what_was_measured_rows_cost_what_they_did_so_far() -> None:
    costs = Costs()
    for _ in range(50):
        costs.learn(8, 8.0)
        costs.learn(32, 12.8)
    assert costs.of(42) == pytest.approx(14.8, rel=1e-3)


class Reader:
    """A draft model that guesses sevens and says what it takes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.learnt: list[tuple[int, int]] = []
        self.asked: list[dict[int, int]] = []

    def join(self, slot: int) -> None:
        pass

    def seconds(self, slots: int, length: int) -> float:
        return self._seconds * slots * length

    def reading(self, slot: int, text: np.ndarray) -> float:
        return 0.0

    def guess(self, texts: Mapping[int, np.ndarray], lengths: Mapping[int, int]) -> dict[int, np.ndarray]:
        self.asked.append(dict(lengths))
        return {slot: np.full(lengths[slot], 7, np.int64) for slot in texts}

    def learn(self, slot: int, right: int) -> None:
        self.learnt.append((slot, right))


NEW = np.arange(20, dtype=np.int64)


def drafting(seconds: float, *costs: tuple[int, float]) -> tuple[Drafter, Reader]:
    reader = Reader(seconds)
    made = Drafter(8, reader)
    for rows, took in costs * 50:
        made.took(rows, took)
    return made, reader


def test_a_cheap_draft_guesses_where_the_text_is_new() -> None:
    made, reader = drafting(0.01, (1, 1.0), (8, 1.1))
    assert made.worthy([0]) == [0]
    guess = made.propose(1, {0: NEW}, [100])[0]
    assert set(guess.tolist()) == {7}
    made.learn(0, len(guess), 2)
    assert reader.learnt == [(0, 2)]


def test_the_text_is_asked_first() -> None:
    made, reader = drafting(0.001, (2, 1.0), (16, 1.1))
    guesses = made.propose(2, {0: REPEATING, 1: NEW}, [100, 100])
    assert guesses[0].tolist() == REPEATING[: len(guesses[0])].tolist()
    assert [list(lengths) for lengths in reader.asked] == [[1]]
    made.learn(0, len(guesses[0]), 0)
    assert reader.learnt == []


def test_a_text_that_misleads_is_left_to_the_draft() -> None:
    made, reader = drafting(0.001, (1, 1.0), (8, 1.1))
    guess = made.propose(1, {0: REPEATING}, [100])[0]
    made.learn(0, len(guess), 0)
    assert set(made.propose(1, {0: REPEATING}, [100])[0].tolist()) == {7}
    assert len(reader.asked) == 1


def test_a_draft_that_costs_as_much_as_a_step_is_not_asked() -> None:
    made, reader = drafting(0.6, (1, 1.0), (8, 1.1))
    assert made.propose(1, {0: NEW}, [100]) == {}
    assert reader.asked == []


def test_a_draft_that_is_mostly_wrong_is_left_for_that_sequence_alone() -> None:
    made, reader = drafting(0.1, (2, 1.0), (16, 1.5))
    for _ in range(20):
        made.propose(2, {0: NEW, 1: NEW}, [100, 100])
        made.learn(0, 4, 0)
        made.learn(1, 4, 4)
    reader.asked.clear()
    made.propose(2, {0: NEW, 1: NEW}, [100, 100])
    assert [list(lengths) for lengths in reader.asked] == [[1]]


def test_a_drafts_room_is_each_sequences_own() -> None:
    made, reader = drafting(0.001, (2, 1.0), (16, 1.1))
    made.propose(2, {0: NEW, 1: NEW}, [1, 0])
    assert reader.asked == [{0: 1}]


def test_what_was_dear_long_ago_is_tried_again_and_then_believed_at_once() -> None:
    costs = Costs()
    costs.learn(1, 1.0)
    for _ in range(50):
        costs.learn(8, 6.0)
    for _ in range(1000):
        costs.learn(1, 1.0)
    assert costs.of(1) == pytest.approx(1.0)
    assert costs.of(8) == pytest.approx(3.0, rel=1e-3)
    costs.learn(8, 1.4, trial=True)
    assert costs.of(8) == pytest.approx(1.4)


def test_no_doubt_makes_more_rows_cheaper_than_fewer() -> None:
    costs = Costs()
    costs.learn(16, 1.2, trial=True)
    for _ in range(1000):
        costs.learn(8, 1.0)
    assert costs.of(16) == pytest.approx(1.0, rel=1e-3)


@given(st.integers(1, 5000))
def test_rows_that_are_measured_as_one_differ_by_a_quarter_at_most(rows: int) -> None:
    assert rows <= rounded(rows) <= rows * 1.25
    assert rounded(rounded(rows)) == rounded(rows)


class Reading(Reader):
    """A draft model that has to read a prompt of `prompt` tokens before it can guess, at `each` seconds a token."""

    def __init__(self, seconds: float, each: float) -> None:
        super().__init__(seconds)
        self._each, self._read, self.spent = each, dict[int, int](), 0.0

    def join(self, slot: int) -> None:
        self._read.pop(slot, None)

    def reading(self, slot: int, text: np.ndarray) -> float:
        lag = len(text) - self._read.get(slot, 0)
        return self._each * lag if lag > 2 else 0.0

    def guess(self, texts: Mapping[int, np.ndarray], lengths: Mapping[int, int]) -> dict[int, np.ndarray]:
        self.spent += sum(self.reading(slot, text) for slot, text in texts.items())
        self.spent += self.seconds(len(texts), max(lengths.values()))
        self._read.update({slot: len(text) for slot, text in texts.items()})
        return super().guess(texts, lengths)


def served(reader: Reading, answer: int, prompt: int, chance: float, sequences: int = 400) -> tuple[float, float]:
    """Seconds for so many sequences, eight at a time, with the draft and without it. Steps of 125 M parameters."""

    def step(rows: int) -> float:
        return 0.012 + 0.0008 * rows

    made, dice = Drafter(8, reader), Random(0)
    left, seconds, begun = dict[int, int](), 0.0, 0
    while begun < sequences or left:
        for slot in range(8):
            if slot not in left and begun < sequences:
                made.join(slot)
                left[slot], begun = answer, begun + 1
        slots = list(left)
        texts = {slot: np.arange(prompt + answer - left[slot]) for slot in slots}
        worthy = [slots[row] for row in made.worthy(slots)]
        guesses = made.propose(len(slots), {s: texts[s] for s in worthy}, [left[s] - 1 for s in worthy])
        rows = len(slots) + sum(map(len, guesses.values()))
        seconds += step(rows)
        made.took(rows, step(rows), rows - len(slots))
        for slot in slots:
            right = 0
            while right < len(guesses.get(slot, ())) and dice.random() < chance:
                right += 1
            if slot in guesses:
                made.learn(slot, len(guesses[slot]), right)
            left[slot] -= right + 1
            if left[slot] <= 0:
                del left[slot]
    return seconds + reader.spent, answer * step(8) * sequences / 8


@pytest.mark.parametrize("chance", [0.3, 0.5, 0.7])
def test_a_draft_that_has_to_read_long_prompts_for_short_answers_is_left(chance: float) -> None:
    """Dialogue at batch 8, where reading costs as much as the guesses save."""
    took, plain = served(Reading(0.0003, 0.00015), answer=16, prompt=200, chance=chance)
    assert took < 1.04 * plain


def test_a_draft_that_earns_its_reading_is_kept() -> None:
    took, plain = served(Reading(0.0003, 0.00005), answer=200, prompt=200, chance=0.9, sequences=40)
    assert took < 0.8 * plain
