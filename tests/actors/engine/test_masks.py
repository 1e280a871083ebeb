"""Sequences held to a form: what comes out parses and validates, whatever a model would rather say."""

import json
from functools import cache
from random import Random
from threading import Event

import jsonschema
import numpy as np
import pytest
import torch

from actors.engine import masks
from actors.engine.choosing import allowed
from actors.engine.grammar import Grammars
from actors.engine.sampler import Sampler
from actors.messages import SamplingParams
from cluster.errors import InvalidRequest
from tests.actors.engine.schemas import schema
from tests.actors.engine.test_sampler import chi_square
from tests.actors.engine.tokenizers_made import tokenizer

END = 0
OWN = tokenizer("bytes")
VOCAB = OWN.vocab_size + 5  # a model may have more rows than its tokenizer has tokens
LONGEST = 600
PLAIN = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "likes": {"type": "array", "items": {"type": "string"}},
        "score": {"type": "number"},
    },
    "required": ["name"],
}
ITEM = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 3, "maximum": 250},
        "word": {"type": "string", "minLength": 2, "maxLength": 4},
        "kind": {"enum": ["ab", "abc", 12]},
        "done": {"type": "boolean"},
        "either": {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "number"}, {"type": "null"}]},
    },
    "additionalProperties": False,
}
BOUNDED = {
    "type": "object",
    "properties": {
        "few": {"type": "array", "items": ITEM, "minItems": 2, "maxItems": 3},
        "many": {"type": "array", "items": {"type": "array", "items": {"type": "string", "pattern": "^[ab]+$"}}},
        "pair": {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "string"}], "items": False},
        "other": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["few", "many"],
}
LETTERS = {"type": "string", "pattern": "^[a-d]{1,200}$"}


@cache
def grammars() -> Grammars:
    return Grammars(lambda: OWN)


def sampler(slots: int = 4) -> Sampler:
    return Sampler(VOCAB, slots, (END,), grammars())


class Model:
    """Logits that depend on the tokens so far and on nothing else, and mean nothing."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def logits(self, tokens: list[int]) -> torch.Tensor:
        dice = np.random.default_rng([self._seed, *tokens[-3:], len(tokens)])
        return torch.from_numpy(dice.standard_normal(VOCAB, np.float32) * 2)


def run(own: Sampler, wanted: list[SamplingParams], prepared: bool = True, longest: int = LONGEST) -> list[list[int]]:
    """The answers of one batch, without their end tokens; those that do not end are cut."""
    model, told = Model(1), [[] for _ in wanted]
    for slot, params in enumerate(wanted):
        own.join(slot, params, params.seed or 0, slot, (5,), ())
    live = list(range(len(wanted)))
    while live:
        if prepared:
            own.prepare(live)
        sampled = own.sample(torch.stack([model.logits(told[slot]) for slot in live]), live)
        assert not sampled.faulty
        for slot, token in zip(list(live), sampled.tokens, strict=True):
            if token == END or len(told[slot]) >= longest:
                own.leave(slot)
                live.remove(slot)
            if token != END:
                told[slot].append(token)
    return told


def text(tokens: list[int]) -> str:
    return b"".join(map(OWN.bytes_of, tokens)).decode()


def go_on(bound: masks.Bound, token: int, own: Grammars) -> bool:
    """As `Masks` does: first by what is known."""
    known = bound.walk(token, frozenset({END}), own)
    return bound.take(token, own, frozenset({END})) if known is None else known


def asking(asked: dict, **more: object) -> SamplingParams:
    return SamplingParams(max_tokens=None, structured_outputs={"json": asked}, **more)


@pytest.mark.parametrize("seed", range(30))
def test_all_that_comes_out_validates(seed: int):
    dice = Random(seed)
    schemas = [schema(dice) for _ in range(4)]
    how = [{"temperature": 1.5}, {"temperature": 0.0}, {"temperature": 1.5, "top_p": 0.7, "top_k": 20}, {"min_p": 0.1}]
    ended = 0
    answers = run(sampler(), [asking(s, **h) for s, h in zip(schemas, how, strict=True)])
    for asked, tokens in zip(schemas, answers, strict=True):
        if len(tokens) < LONGEST:
            jsonschema.validate(json.loads(text(tokens)), asked)
            ended += 1
    assert ended >= 3


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_an_answer_does_not_depend_on_when_masks_are_made(temperature: float):
    wanted = [asking(schema(Random(s)), temperature=temperature, seed=3) for s in range(4)]
    assert run(sampler(), wanted) == run(sampler(), wanted, prepared=False)


def test_the_likeliest_that_fits_is_the_same_however_it_is_found(monkeypatch: pytest.MonkeyPatch):
    wanted = [asking(schema(Random(s)), temperature=0.0) for s in range(4)]
    usual = run(sampler(), wanted)
    for tries in (0, 50):
        monkeypatch.setattr("actors.engine.sampler.NEXT", tries)
        assert run(sampler(), wanted) == usual


@pytest.mark.parametrize("seed", range(10))
def test_a_mask_is_the_compiler_s_own(seed: int):
    """Also where a single token is forced and the mask is not asked for."""
    dice, own = Random(seed), grammars()
    bound = masks.Bound("json:" + json.dumps(schema(dice)), [])
    bound.begin(own)
    alone = Grammars(lambda: OWN).matcher(bound.spec)
    for _ in range(40):
        if alone.is_stopped():
            break
        expected = np.frombuffer(alone.deep_copy().compute_bitmask(), np.uint32)
        mask = bound.look(own, VOCAB)
        assert mask.bits.tolist()[: len(expected)] == expected.tolist()
        fits = np.flatnonzero(allowed(mask.bits, VOCAB)).tolist()
        assert mask.forced <= (len(fits) == 1)
        token = dice.choice([token for token in fits if token != END] or fits)
        assert go_on(bound, token, own)
        alone.consume_token(token)


@pytest.mark.parametrize("seed", range(40))
def test_what_sequences_learn_of_each_other_is_what_the_compiler_says(seed: int):
    """Whatever way a state was come by: its mask, and which tokens fit."""
    dice, own = Random(seed), Grammars(lambda: OWN)
    spec = "json:" + json.dumps((PLAIN, schema(dice), BOUNDED, ITEM)[seed % 4])
    for _ in range(2):
        own.automaton(spec).states.begin()  # so many that it pays to learn
    walked = 0
    for _ in range(12):
        bound, alone = masks.Bound(spec, []), Grammars(lambda: OWN).matcher(spec)
        bound.begin(own)
        for _ in range(60):
            if alone.is_stopped():
                break
            expected = np.frombuffer(alone.deep_copy().compute_bitmask(), np.uint32)
            assert bound.look(own, VOCAB).bits[: len(expected)].tolist() == expected.tolist()
            fits = [token for token in np.flatnonzero(allowed(expected, OWN.vocab_size)).tolist() if token != END]
            if not fits:
                break
            astray = dice.randrange(OWN.vocab_size)
            if astray not in (*fits, END):  # what is forced can be spelled in other ways, too
                spells = alone.deep_copy().try_consume_tokens([astray]) == 1
                assert go_on(bound, astray, own) == spells
                if spells:
                    break
            token = dice.choice(fits[:: max(1, len(fits) // 6)])
            known = bound.state is not None and token in bound.state.steps
            assert go_on(bound, token, own)
            alone.consume_token(token)
            walked += known
    assert walked > 10


def test_a_known_way_costs_a_matcher_nothing():
    class Idle:
        """A matcher that is not to be asked."""

    own = sampler()
    asked = asking({**PLAIN, "title": "asked of nobody"}, temperature=0.0)
    for name, age, known in (("Ida", 12, False), ("Ada", 21, False), ("Ada", 12, True), ("Adada", 2121, True)):
        tokens = [
            token for part in ('{"name": "', *name, '", "age": ', *str(age), "}") for token in OWN.plain_tokens(part)
        ]
        own.join(0, asked, 1, 0, (5,), ())
        own.join(1, asked, 1, 0, (5,), ())
        own.masks.settle([0])
        if known:
            own.masks._bound[0].matcher = Idle()
        for token in (*tokens, END):
            row = torch.zeros(1, VOCAB)
            row[0, token] = 9.0
            assert own.sample(row, [0]).tokens == [token]
        own.leave(0)
        own.leave(1)


def test_masks_are_made_beside_the_forward_where_they_will_be_needed():
    own = sampler()
    own.join(0, SamplingParams(structured_outputs={"regex": "[ab]{99}"}, temperature=0.0), 1, 0, (5,), ())
    own.join(1, SamplingParams(structured_outputs={"regex": "[ab]{99}"}, top_p=0.5), 1, 0, (5,), ())
    own.join(2, SamplingParams(structured_outputs={"regex": ".{99}"}, temperature=0.0), 1, 0, (5,), ())
    for at in range(3):
        own.prepare([0, 1, 2])
        own.masks.settle([0])
        made = [own.masks._bound[slot].mask is not None for slot in range(3)]
        assert made == [at > 0, True, False]
        own.sample(torch.stack([Model(1).logits([at])] * 3), [0, 1, 2])


def test_a_busy_machine_s_clock_ends_no_form(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(masks.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(masks.time, "monotonic", lambda: float(next(clock)))
    own = sampler(1)
    own.join(0, asking(LETTERS), 1, 0, (5,), ())
    assert own.sample(Model(1).logits([])[None], [0]).stuck == ()


def test_an_answer_does_not_depend_on_its_neighbours():
    wanted = [asking(schema(Random(s)), seed=3) for s in range(4)]
    together = run(sampler(), wanted)
    own = sampler()
    own.join(0, SamplingParams(), 1, 0, (5,), ())
    own.sample(Model(2).logits([])[None], [0])
    own.leave(0)
    alone = [run(own, [wanted[0]])[0]]
    assert alone == together[:1]


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"temperature": 1.5}, {"temperature": 1.5, "top_p": 0.8},
                                    {"frequency_penalty": 1.5, "logit_bias": {70: 5.0}}])  # fmt: skip
def test_a_preempted_sequence_goes_on_as_it_would_have(params: dict):
    wanted = asking(schema(Random(5)), seed=9, **params)
    whole = run(sampler(), [wanted])[0]
    assert 4 < len(whole) < LONGEST
    for cut in (1, len(whole) // 2, len(whole) - 1):
        own, told = sampler(), whole[:cut]
        own.join(2, wanted, 9, 0, (5,), tuple(told))
        while True:
            token = own.sample(Model(1).logits(told)[None], [2]).tokens[0]
            if token == END:
                break
            told = [*told, token]
        assert told == whole


def test_a_complete_form_allows_end_tokens_alone():
    own = sampler()
    own.join(0, SamplingParams(structured_outputs={"choice": ["a"]}, ignore_eos=True), 1, 0, (5,), ())
    told = [own.sample(Model(1).logits([])[None], [0]).tokens[0] for _ in range(5)]
    assert text(told[:1]) == "a"
    assert told[1:] == [END] * 4


def test_the_form_outranks_min_tokens():
    wanted = {"min_tokens": 5, "max_tokens": None}
    short = run(sampler(), [SamplingParams(structured_outputs={"regex": "ab"}, **wanted)])[0]
    assert text(short) == "ab"
    for temperature in (0.0, 1.0):
        long = run(
            sampler(), [SamplingParams(structured_outputs={"regex": "[ab]+"}, temperature=temperature, **wanted)]
        )
        assert len(long[0]) >= 5


def test_bias_and_penalties_choose_among_what_is_allowed():
    a, b = (OWN.plain_tokens(letter)[0] for letter in "ab")
    form = {"structured_outputs": {"regex": "(a|b){40}"}, "temperature": 0.0}
    own = sampler()
    biased = run(own, [SamplingParams(logit_bias={b: 100.0}, **form)], longest=20)[0]
    assert set(text(biased)) == {"b"}
    level = torch.zeros(VOCAB)
    own.join(0, SamplingParams(frequency_penalty=1.0, **form), 0, 0, (5,), ())
    drawn = [own.sample(level[None].clone(), [0]).tokens[0] for _ in range(8)]
    assert drawn.count(a) == drawn.count(b) == 4 or {len(OWN.bytes_of(token)) for token in drawn} != {1}


def test_logprobs_are_those_of_the_model():
    row = Model(1).logits([])
    own = sampler()
    own.join(0, SamplingParams(structured_outputs={"choice": ["a", "b"]}, logprobs=2), 1, 0, (5,), ())
    sampled = own.sample(row[None], [0])
    told = sampled.logprobs[0]
    assert told is not None
    assert told.token == sampled.tokens[0]
    assert told.logprob == pytest.approx(float(row.log_softmax(0)[told.token]), abs=1e-4)
    assert len(told.top) == 2


@pytest.mark.parametrize("params", [{}, {"top_k": 3}, {"temperature": 0.7, "top_p": 0.9}])
def test_what_is_drawn_is_distributed_as_what_is_allowed(params: dict):
    """A first draw from all and a second from what fits is a draw from what fits."""
    letters = [OWN.plain_tokens(letter)[0] for letter in "abcd"]
    row = torch.full((VOCAB,), -4.0)
    row[letters] = torch.tensor([0.0, 1.0, -1.0, 0.5])
    row[END] = 2.0
    draws, wanted = 2000, SamplingParams(structured_outputs={"regex": "[a-d]x{9}"}, **params)
    plain = SamplingParams(**params)
    only = torch.full((VOCAB,), -torch.inf)
    only[letters] = row[letters]
    counts = np.zeros((2, 4))
    for place, (how, line) in enumerate([(wanted, row), (plain, only)]):
        own = sampler(1)
        for seed in range(draws):
            own.join(0, how, seed, 0, (5,), ())
            counts[place, letters.index(own.sample(line[None].clone(), [0]).tokens[0])] += 1
    expected = np.exp(only[letters].double().numpy() / wanted.temperature)
    if not params:
        assert chi_square(counts[0], expected / expected.sum()) < 4
    assert np.abs(counts[0] - counts[1]).max() < 6 * np.sqrt(draws) / 2


def test_a_form_that_takes_too_long_is_given_up_alone(monkeypatch: pytest.MonkeyPatch):
    own, model = sampler(), Model(1)
    own.join(0, SamplingParams(structured_outputs={"regex": "[a-z]+"}), 1, 0, (5,), ())
    own.join(1, asking(LETTERS), 1, 0, (5,), ())
    own.join(2, SamplingParams(temperature=0.0), 1, 0, (5,), ())
    logits = torch.stack([model.logits([])] * 3)
    assert own.sample(logits, [0, 1, 2]).stuck == ()
    own.masks._bound[0].seconds = 10.0  # as if it had taken that long
    sampled = own.sample(logits, [0, 1, 2])
    assert sampled.stuck == sampled.faulty == (0,)
    own.leave(0)
    assert own.sample(logits[1:], [1, 2]).stuck == ()


def test_an_automaton_at_its_limit_is_made_anew_once(monkeypatch: pytest.MonkeyPatch):
    class Spent:
        """A matcher whose shared automaton is full."""

        def is_stopped(self) -> bool:
            return True

        def is_error(self) -> bool:
            return True

        def try_consume_tokens(self, tokens: list[int]) -> int:
            return 0

    own = sampler()
    own.join(0, SamplingParams(structured_outputs={"regex": "[a-z]{9}"}), 1, 0, (5,), ())
    row = Model(1).logits([])
    first = own.sample(row[None], [0]).tokens[0]
    bound = own.masks._bound[0]
    bound.matcher = Spent()
    own.sample(row[None], [0])
    assert bound.renewed
    assert bound.tokens[0] == first
    assert len(bound.tokens) == 2
    bound.matcher = Spent()
    assert own.sample(row[None], [0]).stuck == (0,)


def test_an_emitted_token_that_does_not_fit_ends_that_sequence():
    own = sampler()
    own.join(0, SamplingParams(structured_outputs={"regex": "[0-9]+"}), 1, 0, (5,), OWN.plain_tokens("x"))
    assert own.sample(Model(1).logits([])[None], [0]).stuck == (0,)


def test_without_grammars_nothing_is_constrained():
    with pytest.raises(InvalidRequest, match="structured_outputs"):
        Sampler(VOCAB, 1, (END,)).join(0, SamplingParams(structured_outputs={"regex": "a"}), 1, 0, (5,), ())


def test_the_vocabulary_is_read_before_it_is_asked_for():
    read = []
    own = Sampler(VOCAB, 1, (END,), Grammars(lambda: read.append(1) or OWN))
    own.warm()
    own.masks._thread.submit(lambda: None).result()
    assert read == [1]


def test_ambiguous_grammars_are_given_up_and_cost_no_more_than_they_may():
    own, model = sampler(1), Model(1)
    grammar = 'start: s\ns: s s s s | s s s | s s | "a" | "aa" | "b"'
    own.join(0, SamplingParams(structured_outputs={"grammar": grammar}, ignore_eos=True), 1, 0, (5,), ())
    told: list[int] = []
    letter = OWN.plain_tokens("a")[0]
    for _ in range(300):
        row = model.logits(told)
        row[letter] = 50.0  # on and on
        sampled = own.sample(row[None], [0])
        if sampled.stuck:
            break
        told += sampled.tokens
    else:
        pytest.fail("it went on")
    assert own.masks._bound[0].seconds < masks.FIRST_SECONDS + masks.TOKEN_SECONDS * len(told) + 2.0


def test_nobody_waits_for_a_form_that_is_not_in_the_step():
    own = sampler()
    gate, begun = Event(), Event()
    own.masks._thread.submit(lambda: (begun.set(), gate.wait()))
    begun.wait()
    own.join(0, asking(PLAIN, temperature=0.0), 1, 0, (5,), ())
    own.join(1, SamplingParams(temperature=0.0), 1, 0, (5,), ())
    row = torch.zeros(1, VOCAB)
    row[0, 7] = 1.0
    assert own.sample(row, [1]).tokens == [7]
    gate.set()
    own.sample(row, [0])
    assert own.masks._bound[0].matcher is not None


def test_a_form_that_is_given_up_at_its_end_has_come_to_it(monkeypatch: pytest.MonkeyPatch):
    own = sampler()
    own.join(0, SamplingParams(structured_outputs={"regex": "a"}, temperature=0.0), 1, 0, (5,), ())
    own.masks.settle([0])
    (letter,) = OWN.plain_tokens("a")
    for token in (letter, END):
        row = torch.zeros(1, VOCAB)
        row[0, token] = 1.0
        if token == END:
            own.masks._bound[0].state = None
            monkeypatch.setattr(masks, "FIRST_SECONDS", -1000.0)
        sampled = own.sample(row, [0])
        assert (sampled.tokens, sampled.stuck) == ([token], ())


def test_guesses_do_not_count_against_a_form_and_are_given_up_where_asking_is_slow(monkeypatch: pytest.MonkeyPatch):
    own = sampler()
    own.join(0, SamplingParams(structured_outputs={"regex": "a{9}"}, temperature=0.0), 1, 0, (5,), ())
    own.masks.settle([0])
    bound = own.masks._bound[0]
    bound.state, spent = None, bound.seconds
    (letter,) = OWN.plain_tokens("a")
    assert own.fitting(0, [letter] * 3) == 3
    assert bound.seconds == spent
    monkeypatch.setattr(masks, "TOKEN_SECONDS", -1.0)
    assert own.fitting(0, [letter] * 3) == 3
    assert own.fitting(0, [letter] * 3) == 0
