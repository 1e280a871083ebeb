"""Guessed tokens change how fast an answer comes and nothing else."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from actors.engine import LLM, SamplingParams, StructuredOutputsParams
from actors.engine.done import pack_word, unpack_word, word_size
from actors.engine.draft_model import CATCH_UP_TOKENS
from actors.engine.drafts import MOST
from actors.engine.loop import Engine
from actors.engine.runner import Runner
from actors.messages import Submit
from actors.models.batch import Batch
from tests.actors.engine.guessing import Eager, engine
from tests.actors.engine.remembering import Remembering

STARTER = "models/starter"


def wavering(tokens: Sequence[int]) -> int:
    """Mostly by the last two tokens, so that it repeats itself, and now and then by all of them."""
    if len(tokens) % 9 == 0:
        return sum(tokens) % 5
    return (3 * tokens[-1] + tokens[-2 % len(tokens)] + 1) % 5


def mistaken(tokens: Sequence[int]) -> int:
    """What `wavering` says, but for every fourth token."""
    return (wavering(tokens) + (len(tokens) % 4 == 0)) % 5


def expected(prompt: Sequence[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(wavering(tokens))
    return tokens[len(prompt) :]


def greedy(count: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=count)


def answered(made: Engine, wanted: Sequence[tuple[list[int], int]]) -> dict[int, list[int]]:
    """The answers to prompts that come one step after the other, by key."""
    answers: dict[int, list[int]] = {}
    for prompt, count in wanted:
        answers[made.add(Submit(0, tuple(prompt), greedy(count), seed=0))] = []
        for moved, delta in made.step():
            answers[moved] += delta.tokens
    while made.busy:
        for moved, delta in made.step():
            assert delta.error is None
            answers[moved] += delta.tokens
    return answers


PROMPTS = st.lists(st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 60)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(PROMPTS, st.integers(30, 60), st.sampled_from([1, 3, 4]), st.sampled_from([None, mistaken]))
def test_every_answer_is_the_one_without_guesses(
    wanted: list[tuple[list[int], int]], blocks: int, size: int, guess: object
) -> None:
    draft = Remembering(mistaken) if guess is not None else None
    made, _ = engine(Remembering(wavering), max(blocks, 100 // size + 1), size, draft)
    assert list(answered(made, wanted).values()) == [expected(*one) for one in wanted]
    assert made.load.kv_used == 0.0


@settings(max_examples=60, deadline=None)
@given(PROMPTS, st.integers(30, 60), st.sampled_from([1, 3, 4]), st.sampled_from([0, 2, 100]))
def test_a_draft_that_is_the_model_is_always_right(
    wanted: list[tuple[list[int], int]], blocks: int, size: int, places: int
) -> None:
    """Its rule looks at every token: one key of another sequence, or of a guess that failed, and it would be wrong."""
    made, eager = engine(
        Remembering(), max(blocks, 100 // size + 1), size, Remembering(), looks=False, places=places
    )  # fmt: skip
    answered(made, wanted)
    assert eager.right == eager.guessed
    assert eager.guessed > 0 or all(count <= 2 for _, count in wanted)


def test_a_draft_reads_a_long_beginning_in_pieces() -> None:
    draft = Remembering()
    made, eager = engine(Remembering(), 250, 4, draft, looks=False)
    rows = counted(draft)
    answered(made, [([token % 200 for token in range(CATCH_UP_TOKENS + 200)], 60)])
    assert max(rows) == CATCH_UP_TOKENS
    assert eager.right == eager.guessed > 30


def counted(draft: Remembering) -> list[int]:
    """Grows with every step of `draft` by how many rows it had."""
    rows: list[int] = []
    forward = draft.forward

    def noted(batch: Batch) -> torch.Tensor:
        rows.append(len(batch.tokens))
        return forward(batch)

    draft.forward = noted  # type: ignore[method-assign]
    return rows


def test_a_draft_reads_a_known_beginning_once() -> None:
    draft = Remembering()
    made, eager = engine(Remembering(), 100, 4, draft, looks=False)
    beginning = list(range(1, 65))
    answered(made, [([*beginning, 5], 20)])
    rows = counted(draft)
    answered(made, [([*beginning, 6], 20)])
    assert max(rows) < 16
    assert eager.right == eager.guessed


@pytest.mark.parametrize("steps", [0, 1, 5, 23])
def test_a_draft_that_fails_costs_no_answer(steps: int) -> None:
    draft = Remembering()
    made, eager = engine(Remembering(wavering), 100, 4, draft)
    rows, forward = counted(draft), draft.forward

    def failing(batch: Batch) -> torch.Tensor:
        logits = forward(batch)
        if len(rows) > steps:
            raise RuntimeError("out of memory")
        return logits

    draft.forward = failing  # type: ignore[method-assign]
    wanted = [([1, 2, 3], 60), ([4, 2], 60), ([3, 3, 1, 2], 60)]
    with capture_logs() as told:
        assert list(answered(made, wanted).values()) == [expected(*one) for one in wanted]
    assert len(rows) == steps + 1, "it is not asked again"
    assert [entry["reason"] for entry in told] == ["RuntimeError: out of memory"]
    eager._looks, right = True, eager.right
    answered(made, [([1, 2, 3], 60)])
    assert eager.right > right, "what the text itself foretells is guessed still"


def beginning(seed: int) -> list[int]:
    return [(7 * seed + index * (seed + 1)) % 200 for index in range(40)]


def test_a_draft_goes_with_the_blocks_that_leave_the_cache_and_come_back() -> None:
    draft = Remembering()
    made, eager = engine(Remembering(), 16, 4, draft, looks=False, places=100)
    for seed in range(5):
        answered(made, [([*beginning(seed), 5], 8)])
    rows = counted(draft)
    for seed in range(5):
        answered(made, [([*beginning(seed), 6], 8)])
    assert made.load.prefix_hits >= 5 * 40
    assert max(rows) < 16, "its keys came back too"
    assert eager.right == eager.guessed > 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([1, 1, 8])), min_size=12, max_size=24),
    st.sampled_from([4, 10, 30]),
)
def test_a_draft_knows_which_of_its_keys_went_with_which_block(wanted: list[tuple[int, int, int]], places: int) -> None:
    """Answers of one token are not guessed for: the draft has no keys in their blocks, wherever these go."""
    made, eager = engine(Remembering(), 16, 4, Remembering(), looks=False, places=places)
    for seed, last, count in wanted:
        answered(made, [([*beginning(seed), last], count)])
    assert eager.right == eager.guessed


@pytest.mark.parametrize("draft", [None, Remembering(mistaken)])
def test_guesses_come_true_and_save_steps(draft: Remembering | None) -> None:
    made, eager = engine(Remembering(wavering), 100, 4, draft)
    made.add(Submit(0, (1, 2, 3), greedy(200), seed=0))
    steps = 0
    while made.busy:
        made.step()
        assert made.last_result is not None
        steps += made.last_result.steps
    assert eager.right > 60
    assert steps < 140


@pytest.mark.parametrize("draft", [None, Remembering(wavering)])
def test_a_stop_id_within_a_guess_ends_the_answer_there(draft: Remembering | None) -> None:
    made, _ = engine(Remembering(wavering), 100, 4, draft)
    text = expected([1, 2, 3], 100)
    params = SamplingParams(temperature=0.0, max_tokens=100, stop_token_ids=[text[70]], min_tokens=0)
    cut = text.index(text[70]) + 1
    made.add(Submit(0, (1, 2, 3), params, seed=0))
    got: list[int] = []
    while made.busy:
        for _, delta in made.step():
            got += delta.tokens
            finish = delta.finish
    assert got == text[:cut]
    assert finish == "stop"


@pytest.fixture(scope="module")
def plain() -> Iterator[LLM]:
    with LLM(STARTER, dtype="float32", speculation="off", max_model_len=256) as llm:
        yield llm


@pytest.fixture(scope="module", params=["ngram", "draft"])
def guessing(request: pytest.FixtureRequest) -> Iterator[tuple[LLM, Eager]]:
    draft = STARTER if request.param == "draft" else None
    with LLM(STARTER, dtype="float32", speculation=request.param, draft_model=draft, max_model_len=256) as llm:
        runner: Runner = llm.engine.executor.execute.__self__  # type: ignore[attr-defined]
        runner._drafter = eager = Eager.instead_of(runner._drafter)
        yield llm, eager


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_real_model_says_the_same_with_and_without(
    plain: LLM, guessing: tuple[LLM, Eager], temperature: float
) -> None:
    prompt = [5, 6, 7, 8, 5, 6, 7, 8, 5, 6]
    params = SamplingParams(temperature=temperature, max_tokens=60, seed=7, ignore_eos=True, logprobs=2)
    told = []
    for llm in (plain, guessing[0]):
        out = llm.generate([prompt, prompt[:5]], params)
        told.append([(o.outputs[0].token_ids, [p.token for p in o.outputs[0].logprobs or []]) for o in out])
    assert told[0] == told[1]


def test_penalties_and_filters_are_the_same_with_and_without(plain: LLM, guessing: tuple[LLM, Eager]) -> None:
    prompts = [[5, 6, 7, 8, 5, 6, 7, 8, 5, 6], [40, 41], [9] * 5]
    params = SamplingParams(
        temperature=1.1, top_p=0.9, top_k=40, min_p=0.01, frequency_penalty=0.3, repetition_penalty=1.1, seed=11,
        max_tokens=50, ignore_eos=True, logit_bias={7: 2.0},
    )  # fmt: skip
    told = [[o.outputs[0].token_ids for o in llm.generate(prompts, params)] for llm in (plain, guessing[0])]
    assert told[0] == told[1]


def test_draws_of_a_like_model_meet_at_any_temperature(guessing: tuple[LLM, Eager]) -> None:
    """The model as its own draft is all but always right, since both draw by the same numbers."""
    llm, eager = guessing
    if eager._model is None:
        pytest.skip("looks up only")
    guessed, right = eager.guessed, eager.right
    llm.generate([[5, 6, 7]] * 4, SamplingParams(temperature=1.0, max_tokens=60, seed=3, ignore_eos=True))
    assert eager.guessed - guessed > 100
    assert eager.right - right > 0.97 * (eager.guessed - guessed)


def test_a_form_is_kept_to_within_guesses(plain: LLM, guessing: tuple[LLM, Eager]) -> None:
    form = StructuredOutputsParams(
        json={
            "type": "array",
            "minItems": 6,
            "maxItems": 6,
            "items": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]},
        }
    )
    before = guessing[1].right
    params = SamplingParams(temperature=0.9, max_tokens=150, seed=3, structured_outputs=form)
    told = [
        [out.outputs[0].token_ids for out in llm.generate([[40, 41], [50]], params)] for llm in (plain, guessing[0])
    ]
    assert told[0] == told[1]
    assert guessing[1].right - before > 20


def test_ranks_that_guess_together_say_the_same(plain: LLM) -> None:
    prompts = [[5, 6, 7, 8, 5, 6, 7, 8, 5, 6], [9, 9, 9, 9], [40, 41]]
    params = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    told = [[out.outputs[0].token_ids for out in plain.generate(prompts, params)]]
    with LLM(
        STARTER, dtype="float32", tensor_parallel_size=2, speculation="draft", draft_model=STARTER, max_model_len=128
    ) as llm:
        told.append([out.outputs[0].token_ids for out in llm.generate(prompts, params)])
    assert told[0] == told[1]


def test_the_distribution_is_the_samplers_own(plain: LLM, guessing: tuple[LLM, Eager]) -> None:
    """Eight hundred answers of three tokens, with eager guesses and without, differ no more than chance makes them."""
    prompt = [5, 6, 7, 5, 6]
    counts = []
    for llm, first in ((plain, 0), (guessing[0], 100)):
        seen: dict[tuple[int, ...], int] = {}
        for seed in range(first, first + 8):
            params = SamplingParams(temperature=1.0, top_k=3, max_tokens=3, n=100, ignore_eos=True, seed=seed)
            for out in llm.generate([prompt], params)[0].outputs:
                seen[tuple(out.token_ids)] = seen.get(tuple(out.token_ids), 0) + 1
        counts.append(seen)
    without, guessed = counts
    total = sum(without.values())
    # the two-sample chi-squared statistic over the answers that are not rare
    common = [answer for answer in without if without[answer] + guessed.get(answer, 0) >= 20]
    statistic = sum(
        (without[answer] - guessed.get(answer, 0)) ** 2 / (without[answer] + guessed.get(answer, 0))
        for answer in common
    )
    assert total == sum(guessed.values()) == 800
    assert statistic < len(common) + 5 * np.sqrt(2 * len(common))


class Chain:
    """A model that looks at the last token alone: `table` [tokens, tokens] holds what may follow it."""

    context_tokens, kv_bytes_per_token = 1000, 0

    def __init__(self, table: np.ndarray) -> None:
        self.vocab_size = len(table)
        self._logits = torch.from_numpy(np.log(table)).float()

    def allocate(self, blocks: int, block_tokens: int) -> None:
        pass

    def forward(self, batch: Batch) -> torch.Tensor:
        return self._logits[batch.tokens[batch.rows]].clone()


def test_coupled_draws_are_distributed_as_the_model_says() -> None:
    """Two thousand answers of three tokens against the probabilities themselves (Pearson's chi-squared test)."""
    chance = np.random.default_rng(4)
    ours = chance.dirichlet(np.ones(5), 5)
    theirs = 0.8 * ours + 0.2 * chance.dirichlet(np.ones(5), 5)
    made, eager = engine(Chain(ours), 200, 4, Chain(theirs), vocab=5, looks=False)
    seen = np.zeros((5, 5, 5))
    answers: dict[int, list[int]] = {}
    for seed in range(2000):
        params = SamplingParams(temperature=1.0, max_tokens=3)
        answers[made.add(Submit(0, (2,), params, seed=seed))] = []
    while made.busy:
        for key, delta in made.step():
            answers[key] += delta.tokens
    for answer in answers.values():
        seen[tuple(answer)] += 1
    wanted = 2000 * ours[2][:, None, None] * ours[:, :, None] * ours[None, :, :]
    usual = wanted >= 5
    statistic = ((seen - wanted)[usual] ** 2 / wanted[usual]).sum()
    assert usual.sum() > 40
    assert statistic < usual.sum() + 5 * np.sqrt(2 * usual.sum())
    # two draws that know nothing of each other meet as often as this, and one that is mostly right more often
    apart = (ours[2] @ (ours * theirs)).sum()
    assert eager.right / eager.guessed > apart + 0.2


@given(st.data(), st.integers(1, 5))
def test_a_word_between_ranks_says_what_was_meant(data: st.DataObject, rows: int) -> None:
    tokens = st.integers(0, 2**24 - 1)
    drawn = [data.draw(st.lists(tokens, max_size=MOST + 1)) for _ in range(rows)]
    guesses = [data.draw(st.lists(tokens, max_size=MOST)) for _ in range(rows)]
    word = pack_word(False, drawn, guesses, True)
    assert len(word) == word_size(rows, True)
    assert unpack_word(word, rows, True) == (False, drawn, guesses)
