"""The engine over a model that notices every wrong block: batching, chunks, reuse, put-backs, cancels, refusals."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine.loop import Engine
from actors.engine.plan import Plan, Result
from actors.messages import Delta, SamplingParams, Submit
from actors.models.batch import Batch
from cluster.errors import ContextTooLong, InvalidRequest, Overloaded
from cluster.scheduling.admission import MOST_URGENT
from tests.actors.engine.remembering import continuation, engine, next_token

GREEDY = SamplingParams(temperature=0.0, max_tokens=8)


def submit(prompt: list[int], count: int = 8, salt: str = "", **more: object) -> Submit:
    params = SamplingParams(temperature=0.0, max_tokens=count)
    return Submit(0, tuple(prompt), params, seed=0, salt=salt, **more)  # type: ignore[arg-type]


def run(made: Engine, limit: int = 10_000) -> dict[int, tuple[list[int], Delta]]:
    """Step until idle: tokens and last delta of each key."""
    tokens: dict[int, list[int]] = {}
    last: dict[int, Delta] = {}
    for _ in range(limit):
        if not made.busy:
            return {key: (tokens[key], last[key]) for key in tokens}
        for key, delta in made.step():
            tokens.setdefault(key, []).extend(delta.tokens)
            last[key] = delta
    raise AssertionError("the engine does not come to rest")


def prompt_of(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(200), k=length)


def test_one_sequence_continues_by_the_rule() -> None:
    made, _ = engine()
    key = made.add(submit([1, 2, 3]))
    tokens, last = run(made)[key]
    assert tokens == continuation([1, 2, 3], 8)
    assert last.finish == "length"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 6)), min_size=1, max_size=20),
    st.integers(20, 40),
    st.sampled_from([1, 3, 4, 16]),
)
def test_any_mix_in_a_cache_too_small_for_all(wanted: list[tuple[int, int, int]], blocks: int, size: int) -> None:
    """Sequences arrive while others run, share prefixes, are put back; each still continues by the rule."""
    made, _ = engine(blocks=max(blocks, 100 // size + 1), block_tokens=size)
    expected: dict[int, list[int]] = {}
    tokens: dict[int, list[int]] = {}
    for length, count, family in wanted:
        prompt = [family] * min(length, 9) + prompt_of(family, length)
        key = made.add(submit(prompt, count))
        expected[key] = continuation(prompt, count)
        for key, delta in made.step():
            tokens.setdefault(key, []).extend(delta.tokens)
    for key, (rest, _) in run(made).items():
        tokens.setdefault(key, []).extend(rest)
    assert tokens == expected
    assert made.load.kv_used == 0.0
    assert (made.load.running, made.load.waiting) == (0, 0)


def test_a_long_prompt_is_chunked_while_others_decode() -> None:
    made, executor = engine(blocks=200)
    short = made.add(submit([5], 40))
    made.step()
    long = made.add(submit(prompt_of(1, 300), 4))
    results = run(made)
    assert results[long][0] == continuation(prompt_of(1, 300), 4)
    assert max(int(plan.counts.sum()) for plan in executor.plans) <= 32
    mixed = [plan for plan in executor.plans if plan.decodes and int(plan.counts.max()) > 1]
    assert len(mixed) >= 9, "the short stream must move in every step that computes a chunk"
    assert len(results[short][0]) + 1 == 40


@pytest.mark.parametrize("seconds_per_token", [0.0, 1.0])
def test_prompts_join_by_what_steps_take_on_the_engines_clock(seconds_per_token: float) -> None:
    made, executor = engine(blocks=200)
    now = [0.0]
    made._clock = lambda: now[0]
    whole = executor.runner._model.forward

    def slow(batch: Batch) -> torch.Tensor:
        now[0] += 1.0 + seconds_per_token * len(batch.tokens)
        return whole(batch)

    executor.runner._model.forward = slow  # type: ignore[method-assign]
    made.add(submit([5], 60))
    for _ in range(10):
        made.step()
    late = made.add(submit(prompt_of(1, 300), 1))
    assert run(made)[late][0] == continuation(prompt_of(1, 300), 1)
    chunks = [int(plan.counts.max()) for plan in executor.plans if plan.decodes and int(plan.counts.max()) > 1]
    assert max(chunks[3:]) == (31 if seconds_per_token == 0.0 else 16), "a token costs nothing, or half a step"


def test_a_prefix_is_computed_once_per_tenant() -> None:
    made, executor = engine()
    prompt = prompt_of(2, 21)
    first = made.add(submit(prompt, 2, salt="a"))
    run(made)
    computed = sum(int(plan.counts.sum()) for plan in executor.plans)
    again = made.add(submit(prompt, 2, salt="a"))
    same = run(made)
    reused = sum(int(plan.counts.sum()) for plan in executor.plans) - computed
    other = made.add(submit(prompt, 2, salt="b"))
    different = run(made)
    assert computed == 22
    assert reused == 22 - 20
    assert same[again][0] == different[other][0] == continuation(prompt, 2)
    assert made.load.prefix_hits == 20
    assert made.load.prefix_queries == 63
    assert first != again


def test_equal_prompts_at_once_wait_for_the_one_that_computes() -> None:
    made, executor = engine()
    prompt = prompt_of(3, 29)
    keys = [made.add(submit(prompt, 3)) for _ in range(4)]
    results = run(made)
    assert all(results[key][0] == continuation(prompt, 3) for key in keys)
    assert sum(int(plan.counts.sum()) for plan in executor.plans) == 29 + 3 * 1 + 4 * 2


def test_put_back_when_blocks_run_out_and_finished_all_the_same() -> None:
    made, _ = engine(blocks=12)
    prompts = [prompt_of(seed, 8) for seed in range(4)]
    keys = [made.add(submit(prompt, 30)) for prompt in prompts]
    results = run(made)
    assert made.load.preemptions > 0
    for key, prompt in zip(keys, prompts, strict=True):
        assert results[key][0] == continuation(prompt, 30)


def test_cancel_frees_within_one_step() -> None:
    made, _ = engine()
    key = made.add(submit([1, 2, 3], 50))
    waiting = [made.add(submit([seed], 50)) for seed in range(20)]
    made.step()
    assert made.load.kv_used > 0
    for each in [key, *waiting]:
        made.cancel(each)
        made.cancel(each)
    assert (made.load.kv_used, made.load.running, made.load.waiting) == (0.0, 0, 0)
    assert not made.busy
    assert made.step() == []


def test_what_can_never_fit_is_refused_and_the_rest_runs() -> None:
    made, _ = engine(blocks=4)
    with pytest.raises(ContextTooLong, match="16 tokens"):
        made.add(submit([1] * 15, 2))
    with pytest.raises(InvalidRequest, match="prompt"):
        made.add(submit([], 2))
    with pytest.raises(InvalidRequest, match="vocabulary"):
        made.add(submit([211], 2))
    with pytest.raises(InvalidRequest, match="vocabulary"):
        made.add(submit([-1], 2))
    key = made.add(submit([1] * 14, 2))
    assert run(made)[key][0] == continuation([1] * 14, 2)


def test_without_max_tokens_it_ends_at_the_capacity() -> None:
    made, _ = engine(blocks=4)
    key = made.add(Submit(0, (1, 2), SamplingParams(temperature=0.0, max_tokens=None), seed=0))
    tokens, last = run(made)[key]
    assert len(tokens) == 14
    assert last.finish == "length"


def test_a_full_queue_refuses_and_says_so() -> None:
    made, _ = engine(queued_sequences=2)
    for _ in range(10):
        made.add(submit([1], 2))
    with pytest.raises(Overloaded) as caught:
        made.add(submit([1], 2))
    assert caught.value.retry_after_seconds >= 1
    assert len(run(made)) == 10


def test_stop_ids_and_end_tokens() -> None:
    tokens = continuation([4], 10)
    end = tokens[5]
    made, _ = engine(end_tokens=(end,))
    params = {"temperature": 0.0, "max_tokens": 10}
    plain = made.add(Submit(0, (4,), SamplingParams(**params), seed=0))
    ignoring = made.add(Submit(0, (4,), SamplingParams(ignore_eos=True, **params), seed=0))
    by_id = made.add(Submit(0, (4,), SamplingParams(stop_token_ids=[tokens[2]], **params), seed=0))
    results = run(made)
    first = tokens.index(end)
    assert results[plain][0] == tokens[: first + 1]
    assert results[plain][1].finish == "stop"
    assert results[ignoring][0] == tokens
    assert results[by_id][0] == tokens[: tokens.index(tokens[2]) + 1]


def test_emitted_tokens_are_continued_not_repeated() -> None:
    made, _ = engine()
    whole = continuation([9, 9], 12)
    key = made.add(submit([9, 9], 12, emitted=tuple(whole[:5])))
    assert run(made)[key][0] == whole[5:]


def test_a_deadline_ends_a_sequence_with_its_error() -> None:
    made, _ = engine()
    key = made.add(submit([1], 200, deadline=20.0))
    _, last = run(made)[key]
    assert last.finish == "error"
    assert last.error is not None
    assert last.error[0] == "DeadlineExceeded"
    assert made.load.kv_used == 0.0


def test_what_waits_past_its_deadline_is_never_begun() -> None:
    made, _ = engine(running_sequences=1)
    made.add(submit([1], 200))
    late = made.add(submit(prompt_of(1, 30), 4, deadline=20.0))
    _, last = run(made)[late]
    assert last.error is not None
    assert last.error[0] == "DeadlineExceeded"
    assert (made.load.prompt_tokens, made.load.prefix_queries) == (1, 1)  # those of the other


def test_a_load_tells_who_waits_and_how_fast_a_queue_moves() -> None:
    made, _ = engine(running_sequences=1)
    assert (made.load.places, made.load.queue) == (1, ())
    assert (made.load.stay_seconds, made.load.token_seconds) == (0.0, 0.0)
    keys = [made.add(submit([7] * length, 4, priority=level)) for length, level in ((9, 0), (5, 0), (6, 3), (2, 3))]
    assert sorted(made.load.queue) == [(0, 2, 14), (3, 2, 8)]
    assert made.load.queued_tokens == 22
    made.step()
    assert sorted(made.load.queue) == [(0, 1, 5), (3, 2, 8)]
    assert made.load.queued_tokens == 13
    made.cancel(keys[1])
    assert made.load.queue == ((3, 2, 8),)
    assert made.load.token_seconds > 0.0
    run(made)
    assert made.load.stay_seconds > 0.0


def test_what_was_running_already_is_not_refused_by_a_full_queue() -> None:
    made, _ = engine(running_sequences=1, queued_sequences=0)
    made.add(submit([1], 4))
    with pytest.raises(Overloaded):
        made.add(submit([2], 4, priority=MOST_URGENT))
    key = made.add(submit([3], 4, priority=MOST_URGENT - 1))
    assert run(made)[key][0] == continuation([3], 4)


def test_urgent_ones_go_first() -> None:
    made, _ = engine(running_sequences=1)
    slow = made.add(submit([1], 4, priority=5))
    urgent = made.add(submit([2], 4, priority=0))
    order = []
    while made.busy:
        order += [key for key, delta in made.step() if delta.finish]
    assert order == [urgent, slow]


def test_a_fault_ends_its_step_and_the_engine_goes_on() -> None:
    made, executor = engine()
    key = made.add(submit([1, 2, 3], 4))
    whole = executor.execute

    def broken(plan: Plan) -> Result:
        return Result(plan.number, [], fault="RuntimeError: out of memory")

    executor.execute = broken  # type: ignore[method-assign]
    (failed,) = made.step()
    assert failed[0] == key
    assert failed[1].error == ("StrataError", ("RuntimeError: out of memory",))
    executor.execute = whole  # type: ignore[method-assign]
    after = made.add(submit([1, 2, 3], 4))
    assert run(made)[after][0] == continuation([1, 2, 3], 4)


def test_a_model_that_computes_no_numbers_is_an_error_not_an_end() -> None:
    made, executor = engine()
    broken, sound = made.add(submit([1, 2], 4)), made.add(submit([3, 4], 4))
    whole = executor.execute
    executor.execute = lambda plan: replace(whole(plan), faulty=(0,))  # type: ignore[method-assign]
    deltas = dict(made.step())
    assert deltas[broken].error is not None
    assert "no numbers" in deltas[broken].error[1][0]
    executor.execute = whole  # type: ignore[method-assign]
    assert deltas[sound].tokens + tuple(run(made)[sound][0]) == tuple(continuation([3, 4], 4))


def test_the_rule_itself() -> None:
    assert next_token([1, 2]) != next_token([2, 1])
