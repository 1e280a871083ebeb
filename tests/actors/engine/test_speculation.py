"""Guessed tokens change how fast an answer comes and nothing else."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import LLM, SamplingParams, StructuredOutputsParams
from actors.engine.admission import Facts
from actors.engine.done import pack_word, unpack_word, word_size
from actors.engine.drafts import MOST, Drafter
from actors.engine.loop import Engine
from actors.engine.runner import Runner
from actors.engine.sampler import Sampler
from actors.messages import Submit
from actors.settings import Limits
from tests.actors.engine.remembering import VOCAB, Checked, Remembering

STARTER = "models/starter"


class Eager(Drafter):
    """Guesses wherever there is anything to guess."""

    def worthy(self, slots: list[int]) -> list[int]:
        return list(range(len(slots)))

    def _best(self, rows: int, found: dict[int, np.ndarray]) -> int:
        return MOST


def wavering(tokens: Sequence[int]) -> int:
    """Mostly by the last two tokens, so that it repeats itself, and now and then by all of them."""
    if len(tokens) % 9 == 0:
        return sum(tokens) % 5
    return (3 * tokens[-1] + tokens[-2 % len(tokens)] + 1) % 5


def engine(blocks: int, size: int, rule: object = wavering) -> tuple[Engine, Eager]:
    limits = Limits(running_sequences=4, step_tokens=16, block_tokens=size, queued_sequences=100)
    model = Remembering(rule)  # type: ignore[arg-type]
    model.allocate(blocks, size)
    runner = Runner(model, Sampler(VOCAB, 4, ()), slots=4, context_tokens=1000, block_tokens=size, speculates=True)
    eager = Eager(4)
    runner._drafter = eager
    return Engine(Checked(runner), Facts("wavering", VOCAB, 1000, blocks, (), MOST), limits), eager


def expected(prompt: Sequence[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(wavering(tokens))
    return tokens[len(prompt) :]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 60)), max_size=8),
    st.integers(30, 60),
    st.sampled_from([1, 3, 4]),
)
def test_every_answer_is_the_one_without_guesses(wanted: list[tuple[list[int], int]], blocks: int, size: int) -> None:
    made, _ = engine(max(blocks, 100 // size + 1), size)
    answers: dict[int, list[int]] = {}
    right: dict[int, list[int]] = {}
    for prompt, count in wanted:
        key = made.add(Submit(0, tuple(prompt), SamplingParams(temperature=0.0, max_tokens=count), seed=0))
        right[key], answers[key] = expected(prompt, count), []
        for moved, delta in made.step():
            answers[moved] += delta.tokens
    while made.busy:
        for moved, delta in made.step():
            answers[moved] += delta.tokens
    assert answers == right
    assert made.load.kv_used == 0.0


def test_guesses_come_true_and_save_steps() -> None:
    made, eager = engine(100, 4)
    made.add(Submit(0, (1, 2, 3), SamplingParams(temperature=0.0, max_tokens=200), seed=0))
    steps = 0
    while made.busy:
        made.step()
        assert made.last_result is not None
        steps += made.last_result.steps
    assert eager.right > 60
    assert steps < 140


def test_a_stop_id_within_a_guess_ends_the_answer_there() -> None:
    made, _ = engine(100, 4)
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


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_real_model_says_the_same_with_and_without(temperature: float) -> None:
    prompt = [5, 6, 7, 8, 5, 6, 7, 8, 5, 6]
    params = SamplingParams(temperature=temperature, max_tokens=60, seed=7, ignore_eos=True, logprobs=2)
    told = []
    for speculation in ("off", "ngram"):
        with LLM(STARTER, dtype="float32", speculation=speculation, max_model_len=256) as llm:
            if speculation == "ngram":
                runner = llm.engine.executor.execute.__self__  # type: ignore[attr-defined]
                runner._drafter = Eager(64)
            out = llm.generate([prompt, prompt[:5]], params)
            told.append([(o.outputs[0].token_ids, [p.token for p in o.outputs[0].logprobs or []]) for o in out])
    assert told[0] == told[1]


def test_a_form_is_kept_to_within_guesses() -> None:
    form = StructuredOutputsParams(
        json={
            "type": "array",
            "minItems": 6,
            "maxItems": 6,
            "items": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]},
        }
    )
    told = []
    for speculation in ("off", "ngram"):
        with LLM(STARTER, dtype="float32", speculation=speculation, max_model_len=256) as llm:
            eager = None
            if speculation == "ngram":
                eager = llm.engine.executor.execute.__self__._drafter = Eager(64)  # type: ignore[attr-defined]
            params = SamplingParams(temperature=0.9, max_tokens=150, seed=3, structured_outputs=form)
            told.append([out.outputs[0].token_ids for out in llm.generate([[40, 41], [50]], params)])
    assert told[0] == told[1]
    assert eager is not None
    assert eager.right > 20


def test_ranks_that_guess_together_say_the_same() -> None:
    prompts = [[5, 6, 7, 8, 5, 6, 7, 8, 5, 6], [9, 9, 9, 9], [40, 41]]
    params = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    told = []
    for ranks, speculation in ((1, "off"), (2, "ngram")):
        with LLM(
            STARTER, dtype="float32", tensor_parallel_size=ranks, speculation=speculation, max_model_len=128
        ) as llm:
            told.append([out.outputs[0].token_ids for out in llm.generate(prompts, params)])
    assert told[0] == told[1]


def test_the_distribution_is_the_samplers_own() -> None:
    """Eight hundred answers of three tokens, with eager guesses and without, differ no more than chance makes them."""
    prompt = [5, 6, 7, 5, 6]
    counts = []
    for speculation in ("off", "ngram"):
        with LLM(STARTER, dtype="float32", speculation=speculation, max_model_len=64, seed=1) as llm:
            if speculation == "ngram":
                runner = llm.engine.executor.execute.__self__  # type: ignore[attr-defined]
                runner._drafter = Eager(64)
            params = SamplingParams(temperature=1.0, top_k=3, max_tokens=3, n=100, ignore_eos=True)
            seen: dict[tuple[int, ...], int] = {}
            for _ in range(8):
                for out in llm.generate([prompt], params)[0].outputs:
                    seen[tuple(out.token_ids)] = seen.get(tuple(out.token_ids), 0) + 1
            counts.append(seen)
    plain, guessed = counts
    total = sum(plain.values())
    # the two-sample chi-squared statistic over the answers that are not rare
    common = [answer for answer in plain if plain[answer] + guessed.get(answer, 0) >= 20]
    statistic = sum(
        (plain[answer] - guessed.get(answer, 0)) ** 2 / (plain[answer] + guessed.get(answer, 0)) for answer in common
    )
    assert total == sum(guessed.values()) == 800
    assert statistic < len(common) + 5 * np.sqrt(2 * len(common))


@given(st.data(), st.integers(1, 5))
def test_a_word_between_ranks_says_what_was_meant(data: st.DataObject, rows: int) -> None:
    tokens = st.integers(0, 2**24 - 1)
    drawn = [data.draw(st.lists(tokens, max_size=MOST + 1)) for _ in range(rows)]
    guesses = [data.draw(st.lists(tokens, max_size=MOST)) for _ in range(rows)]
    word = pack_word(False, drawn, guesses, True)
    assert len(word) == word_size(rows, True)
    assert unpack_word(word, rows, True) == (False, drawn, guesses)
