"""The sampler against a naive reference, its distribution, and the independence of rows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine.sampler import Sampled, Sampler
from actors.messages import SamplingParams, TokenLogprob

VOCAB = 100
END = 2


def logits(rows: int, seed: int = 0, vocab: int = VOCAB) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 2


def sampler(slots: int = 8, vocab: int = VOCAB) -> Sampler:
    return Sampler(vocab, slots, (END,))


def one(params: SamplingParams, row: torch.Tensor, seed: int = 0, prompt=(), emitted=()) -> tuple[int, TokenLogprob]:
    own = sampler(1, row.shape[-1])
    own.join(0, params, seed, 0, prompt, emitted)
    sampled = own.sample(row.reshape(1, -1), [0])
    return sampled.tokens[0], sampled.logprobs[0]


def reference(params: SamplingParams, row: torch.Tensor, prompt=(), emitted=()) -> np.ndarray:
    """The distribution, written as the definitions read, in float64."""
    z = row.double().numpy().copy()
    for token, bias in params.logit_bias.items():
        z[token] += bias
    if len(emitted) < params.min_tokens:
        z[[END, *params.stop_ids]] = -np.inf
    for token in range(len(z)):
        if token in prompt or token in emitted:
            z[token] = z[token] / params.repetition_penalty if z[token] > 0 else z[token] * params.repetition_penalty
        z[token] -= params.frequency_penalty * list(emitted).count(token)
        z[token] -= params.presence_penalty * (token in emitted)
    if params.greedy or params.top_k == 1:
        return np.eye(len(z))[z.argmax()]
    p = np.exp((z - z.max()) / params.temperature)
    p[p < params.min_p * p.max()] = 0
    if 0 < params.top_k < len(p):
        p[p < np.sort(p)[-params.top_k]] = 0
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= params.top_p]] = 0
    return p / p.sum()


def chi_square(counts: np.ndarray, p: np.ndarray) -> float:
    """Standard deviations that the statistic lies above its mean (Wilson-Hilferty); rare cells are merged."""
    expected = p * counts.sum()
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 5:
        assert observed[-1] < 30
        observed, expected = observed[:-1], expected[:-1]
    freedom = len(expected) - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    return ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


SHAPES = [
    SamplingParams(),
    SamplingParams(temperature=0.6),
    SamplingParams(temperature=1.7, top_k=7),
    SamplingParams(top_p=0.7),
    SamplingParams(min_p=0.1),
    SamplingParams(temperature=1.3, top_k=30, top_p=0.9, min_p=0.01),
    SamplingParams(repetition_penalty=1.4, frequency_penalty=0.5, presence_penalty=-0.7),
    SamplingParams(logit_bias={5: 4.0, 6: -100.0}, top_p=0.95),
    SamplingParams(min_tokens=9, max_tokens=20, stop_token_ids=[3, 4]),
]


@pytest.mark.parametrize("params", SHAPES, ids=range(len(SHAPES)))
def test_draws_follow_the_definition(params):
    draws, row = 20_000, logits(1, seed=5)[0]
    prompt, emitted = (1, 7, 9, 9), (9, 11, 11, 30)
    own = sampler(draws)
    for slot in range(draws):
        own.join(slot, params, 1234, slot, prompt, emitted)
    tokens = own.sample(row.expand(draws, -1), range(draws)).tokens
    p = reference(params, row, prompt, emitted)
    counts = np.bincount(tokens, minlength=VOCAB)
    assert counts[p == 0].sum() == 0
    assert chi_square(counts[p > 0], p[p > 0]) < 4


def test_one_stream_follows_the_definition_too():
    params, row = SamplingParams(temperature=0.8, top_p=0.9), logits(1, seed=6)
    own = sampler(1)
    own.join(0, params, 99, 0, (), ())
    tokens = [own.sample(row, [0]).tokens[0] for _ in range(5_000)]
    p = reference(params, row[0])
    assert chi_square(np.bincount(tokens, minlength=VOCAB)[p > 0], p[p > 0]) < 4
    assert abs(np.corrcoef(tokens[:-1], tokens[1:])[0, 1]) < 0.06


@pytest.mark.parametrize("top_p", [0.3, 0.999, 1.0 - 2**-53])
@pytest.mark.parametrize("top_k", [0, 300, 999])
def test_long_heads_of_a_flat_distribution(top_p, top_k):
    """More tokens survive than the likeliest few that the filter looks at first."""
    draws, row = 4_000, logits(1, seed=8, vocab=1_000)[0] * 0.2
    params = SamplingParams(top_p=top_p, top_k=top_k)
    own = sampler(draws, 1_000)
    for slot in range(draws):
        own.join(slot, params, 4321, slot, (), ())
    counts = np.bincount(own.sample(row.expand(draws, -1), range(draws)).tokens, minlength=1_000)
    p = reference(params, row)
    assert counts[p == 0].sum() == 0
    assert chi_square(counts[p > 0], p[p > 0]) < 4


tokens_lists = st.lists(st.integers(0, VOCAB - 1), max_size=8)
any_params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 3.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    top_k=st.sampled_from([-1, 0, 1, 5, 60, 10_000]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), max_size=3),
    min_tokens=st.sampled_from([0, 3]),
    stop_token_ids=tokens_lists,
    logprobs=st.sampled_from([None, 0, 4]),
)
a_row = st.tuples(any_params, st.integers(-(2**63), 2**63 - 1), st.integers(0, 5), tokens_lists, tokens_lists)


@settings(max_examples=60, deadline=None)
@given(st.lists(a_row, min_size=1, max_size=6), st.integers(0, 99), st.integers(0, 5), st.permutations(range(6)))
def test_a_token_depends_on_its_own_row_alone(rows, seed, other, order):
    """Whoever shares the batch, in whatever order, in whatever slots: three steps, all rows against one alone."""
    together, alone = sampler(), sampler(1)
    slots = [slot for slot in order if slot < len(rows)]
    for slot in slots:
        together.join(slot, *rows[slot])
    watched = other % len(rows)
    alone.join(0, *rows[watched])
    for step in range(3):
        scores = logits(6, seed + step)
        both = together.sample(scores[slots], slots)
        single = alone.sample(scores[watched : watched + 1], [0])
        place = slots.index(watched)
        assert both.tokens[place] == single.tokens[0]
        assert both.logprobs[place] == single.logprobs[0]


@settings(max_examples=60, deadline=None)
@given(a_row, st.integers(0, 99), st.integers(0, 6))
def test_preemption_changes_nothing(row, seed, cut):
    """Leave after `cut` tokens, join another sampler in another slot with them: the same text goes on."""
    params, key, choice, prompt, _ = row
    scores = logits(6, seed)
    steady = sampler()
    steady.join(3, params, key, choice, prompt, ())
    whole = [steady.sample(scores[step : step + 1], [3]).tokens[0] for step in range(6)]
    again = sampler()
    again.join(5, SamplingParams(presence_penalty=1, repetition_penalty=2), 7, 0, (1, 2, 3), (4,))
    again.leave(5)
    again.join(5, params, key, choice, prompt, whole[:cut])
    assert [again.sample(scores[step : step + 1], [5]).tokens[0] for step in range(cut, 6)] == whole[cut:]


@settings(max_examples=80, deadline=None)
@given(a_row, st.integers(0, 99))
def test_only_what_the_definition_allows_is_taken(row, seed):
    params, key, _, prompt, emitted = row
    scores = logits(1, seed)[0]
    token, _ = one(params, scores, key, prompt, emitted)
    assert reference(params, scores, prompt, emitted)[token] > 0


def test_choices_and_seeds_differ_and_repeat():
    scores = logits(1).expand(6, -1) * 0
    own = sampler()
    for slot, (seed, choice) in enumerate([(1, 0), (1, 1), (2, 0), (1, 0), (-1, 0), (2**63 - 1, 0)]):
        own.join(slot, SamplingParams(), seed, choice, (), ())
    texts = np.array([own.sample(scores, range(6)).tokens for _ in range(20)]).T.tolist()
    assert texts[0] == texts[3]
    assert len({tuple(text) for text in texts}) == 5


def test_logprobs_are_those_of_the_raw_logits():
    scores = logits(1, seed=3)
    params = SamplingParams(temperature=0.2, top_k=3, logit_bias={17: 100.0}, presence_penalty=2.0, logprobs=5)
    token, told = one(params, scores[0], emitted=(17, 17))
    expected = torch.log_softmax(scores[0].double(), -1)
    assert token == told.token == 17
    assert told.logprob == pytest.approx(float(expected[17]), abs=1e-5)
    values, tokens = expected.topk(5)
    assert [other for other, _ in told.top] == tokens.tolist()
    assert [value for _, value in told.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_logprobs_of_equals_go_by_id_and_none_means_none():
    flat = torch.zeros(1, VOCAB)
    assert one(SamplingParams(temperature=0, logprobs=3), flat)[1].top == tuple((i, -math.log(VOCAB)) for i in range(3))
    assert one(SamplingParams(temperature=0, logprobs=0), flat)[1] == TokenLogprob(0, -math.log(VOCAB))
    assert one(SamplingParams(temperature=0), flat)[1] is None
    assert len(one(SamplingParams(temperature=0, logprobs=20), torch.zeros(1, 7))[1].top) == 7


def test_end_tokens_and_stop_ids_wait_for_min_tokens():
    scores = torch.zeros(1, VOCAB)
    scores[0, END], scores[0, 50], scores[0, 60] = 9.0, 8.0, 7.0
    own = sampler(1)
    own.join(0, SamplingParams(temperature=0, min_tokens=2, stop_token_ids=[50, 10**6]), 0, 0, (1,), ())
    assert [own.sample(scores, [0]).tokens[0] for _ in range(4)] == [60, 60, END, END]


def test_penalties_pile_up_as_tokens_come():
    scores = torch.zeros(1, VOCAB)
    scores[0, 4], scores[0, 5] = 1.0, 0.75
    own = sampler(1)
    own.join(0, SamplingParams(temperature=0, frequency_penalty=0.5), 0, 0, (4,) * 9, ())
    assert [own.sample(scores, [0]).tokens[0] for _ in range(5)] == [4, 5, 4, 5, 0]


def test_many_new_tokens_are_all_remembered():
    """A bias of frequency against everything seen walks through the vocabulary once, then again."""
    own = sampler(1)
    own.join(0, SamplingParams(temperature=0, presence_penalty=2.0), 0, 0, (), ())
    scores = -torch.arange(float(VOCAB)).reshape(1, -1) / VOCAB
    assert [own.sample(scores, [0]).tokens[0] for _ in range(VOCAB + 1)] == [*range(VOCAB), 0]


def test_of_equal_maxima_top_k_one_takes_the_first():
    flat = torch.zeros(1, VOCAB)
    assert {one(SamplingParams(top_k=1), flat, seed)[0] for seed in range(20)} == {0}


def test_the_logits_given_are_left_as_they_are():
    scores = logits(2)
    kept = scores.clone()
    own = sampler()
    own.join(0, SamplingParams(top_p=0.5, presence_penalty=1, logprobs=2, logit_bias={1: 5}), 0, 0, (), (3, 4))
    own.join(1, SamplingParams(temperature=0), 0, 0, (), ())
    own.sample(scores, [0, 1])
    own.sample(scores[:1], [0])
    assert torch.equal(scores, kept)


def test_a_row_view_and_other_dtypes_are_taken():
    own = sampler()
    own.join(0, SamplingParams(temperature=0), 0, 0, (), ())
    wide = logits(4)
    assert own.sample(wide[::2], [0, 0]).tokens == wide[::2].argmax(1).tolist()
    assert own.sample(wide[:1].bfloat16(), [0]).tokens == wide[:1].bfloat16().argmax(1).tolist()


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("row", "allowed", "faulty"),
    [
        ([NAN, 1.0, 3.0, -INF], {1, 2}, False),
        ([0.0, INF, NAN, 0.0], {1}, False),
        ([INF, INF, 0.0, 0.0], {0, 1}, False),
        ([-INF, -INF, -INF, -5.0], {3}, False),
        ([NAN] * 4, {END}, True),
        ([-INF] * 4, {END}, True),
        ([NAN, -INF, NAN, -INF], {END}, True),
        ([3e38, -3e38, 3e38, -3e38], {0, 2}, False),
    ],
)
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0),
        SamplingParams(),
        SamplingParams(temperature=1e-4),
        SamplingParams(top_p=0.5, top_k=3, min_p=0.1),
        SamplingParams(temperature=0, logprobs=3),
        SamplingParams(repetition_penalty=0.001, logprobs=4),
    ],
)
def test_logits_that_are_no_numbers(row, allowed, faulty, params):
    """A sane row beside it is untouched; logprobs are finite; a row without hope is named."""
    own = sampler(2, 4)
    own.join(0, params, 1, 0, (0, 3), ())
    own.join(1, SamplingParams(temperature=0), 1, 0, (), ())
    sampled = own.sample(torch.tensor([row, [0.0, 1.0, 0.0, 0.0]]), [0, 1])
    assert sampled.tokens[0] in allowed
    assert sampled.tokens[1] == 1
    assert sampled.faulty == ((0,) if faulty else ())
    if sampled.logprobs[0] is not None:
        told = sampled.logprobs[0]
        assert all(math.isfinite(value) for value in [told.logprob, *(value for _, value in told.top)])


def test_when_every_token_is_banned_the_end_token_comes():
    own = Sampler(3, 1, (0, 1, 2))
    own.join(0, SamplingParams(min_tokens=5), 0, 0, (), ())
    assert own.sample(torch.zeros(1, 3), [0]) == Sampled([0], [None])


def test_a_token_that_the_model_lacks_changes_nothing():
    """Admission refuses it; a sampler in the middle of a step would take its gang down."""
    scores = logits(1)
    biased = SamplingParams(logit_bias={VOCAB: 100.0}, stop_token_ids=[VOCAB], min_tokens=1)
    assert one(biased, scores[0]) == one(SamplingParams(min_tokens=1), scores[0])


def test_no_rows():
    assert sampler().sample(torch.empty(0, VOCAB), []) == Sampled([], [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_tokens():
    scores = logits(4)
    for params in SHAPES:
        own, other = sampler(), sampler()
        for slot in range(4):
            mixed = params if slot % 2 else SamplingParams(temperature=0)
            own.join(slot, mixed, slot, 0, (1,), ())
            other.join(slot, mixed, slot, 0, (1,), ())
        assert own.sample(scores, range(4)) == other.sample(scores.cuda(), range(4))
