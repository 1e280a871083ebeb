"""Plans of several steps: the same tokens, logprobs and ends as one step at a time, whatever comes in between."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine.plan import Join, Plan
from actors.engine.runner import LONGEST_RUN_SECONDS, Runner
from actors.engine.sampler import Sampler
from actors.messages import Delta, SamplingParams, Submit, TokenLogprob
from actors.models.batch import Batch
from tests.actors.engine.remembering import VOCAB, Paced, Remembering, continuation, engine

ENDS = tuple(range(0, 40, 4))  # a tenth of what is drawn by chance ends a sequence


@dataclass
class Heard:
    """What a client has of one sequence."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str | None = None
    error: str | None = None

    def hear(self, delta: Delta) -> None:
        assert self.finish is None, "something came after the end"
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        self.finish = delta.finish
        self.error = None if delta.error is None else str(delta.error[1][0])


def follow(made: Paced, heard: dict[int, Heard], limit: int = 5_000) -> dict[int, Heard]:
    """Step until idle."""
    for _ in range(limit):
        if not made.busy:
            return heard
        step(made, heard)
    raise AssertionError("the engine does not come to rest")


def step(made: Paced, heard: dict[int, Heard]) -> None:
    for key, delta in made.step():
        heard.setdefault(key, Heard()).hear(delta)


@cache
def alone(prompt: tuple[int, ...], wanted: str, seed: int, choice: int) -> Heard:
    """The answer where nothing else runs, one step at a time, from a cache with room for all."""
    made, _ = engine(blocks=200, end_tokens=ENDS)
    key = made.add(Submit(0, prompt, KINDS[wanted], seed, choice))
    return follow(made, {})[key]


KINDS = {
    "greedy": SamplingParams(temperature=0.0, max_tokens=17),
    "to the end": SamplingParams(temperature=0.0, max_tokens=33, ignore_eos=True),
    "likely": SamplingParams(temperature=0.0, max_tokens=9, logprobs=2),
    "drawn": SamplingParams(temperature=1.0, max_tokens=30, seed=1),
    "not too short": SamplingParams(temperature=1.2, max_tokens=30, min_tokens=11, logprobs=0),
    "penalised": SamplingParams(temperature=0.9, presence_penalty=1.5, frequency_penalty=0.5, max_tokens=25, top_p=0.9),
    "stopped": SamplingParams(temperature=1.0, max_tokens=30, ignore_eos=True, stop_token_ids=list(range(50, 70))),
    "biased": SamplingParams(temperature=1.0, max_tokens=12, logit_bias={7: 5.0}, top_k=20, logprobs=1),
}

REQUEST = st.tuples(
    st.tuples(st.integers(0, 3), st.integers(1, 30)),  # which prompt, and how much of it
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2),
    st.integers(0, 2),
)
EVENT = st.one_of(
    st.tuples(st.just("submit"), REQUEST),
    st.tuples(st.just("cancel"), st.integers(0, 12)),
    st.tuples(st.just("steps"), st.integers(1, 40), st.integers(1, 40)),  # how far ahead, and interrupted after
)


def prompt_of(which: int, length: int) -> tuple[int, ...]:
    return tuple((which * 7 + at * at) % 200 for at in range(length))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(EVENT, min_size=1, max_size=25), st.integers(1, 40), st.sampled_from([(17, 4), (20, 4), (70, 1), (5, 16)])
)
def test_runs_change_nothing(events: list[tuple], last: int, cache_of: tuple[int, int]) -> None:  # type: ignore[type-arg]
    """Prompts share beginnings, the cache is far too small, runs are cut anywhere, sequences leave at any time."""
    blocks, size = cache_of
    made, executor = engine(blocks=blocks, block_tokens=size, end_tokens=ENDS, running_sequences=4, step_tokens=16)
    asked: dict[int, tuple[tuple[int, ...], str, int, int]] = {}
    heard: dict[int, Heard] = {}
    gone: set[int] = set()
    for event in events:
        if event[0] == "submit":
            (which, length), wanted, seed, choice = event[1]
            prompt = prompt_of(which, length)
            key = made.add(Submit(0, prompt, KINDS[wanted], seed, choice))
            asked[key] = (prompt, wanted, seed, choice)
        elif event[0] == "cancel" and asked:
            key = sorted(asked)[event[1] % len(asked)]
            made.cancel(key)
            gone.add(key)
        elif event[0] == "steps":
            _, made.horizon, cut = event
            executor.interrupted = False

            def during(steps: int, cut: int = cut) -> None:
                executor.interrupted = steps >= cut

            executor.during = during
            step(made, heard)
    made.horizon = last
    executor.interrupted, executor.during = False, lambda steps: None
    follow(made, heard)
    for key, request in asked.items():
        whole = alone(*request)
        if key not in gone:
            assert heard[key] == whole
        elif key in heard:
            assert heard[key].tokens == whole.tokens[: len(heard[key].tokens)]
    assert (made.load.kv_used, made.load.running, made.load.waiting) == (0.0, 0, 0)
    assert made.load.generated_tokens == sum(len(one.tokens) for one in heard.values())


def greedy(prompt: list[int], count: int) -> Submit:
    return Submit(0, tuple(prompt), SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True), 0)


def test_a_run_is_one_plan() -> None:
    made, executor = engine()
    made.horizon = 40
    keys = [made.add(greedy([1, 2, 3], 30)), made.add(greedy([4], 30))]
    heard = follow(made, {})
    assert executor.steps == [1, 29]
    assert [heard[key].tokens for key in keys] == [continuation([1, 2, 3], 30), continuation([4], 30)]
    assert [len(plan.inputs) for plan in executor.plans] == [1, 2]


def test_the_shortest_way_to_an_end_bounds_a_run() -> None:
    made, executor = engine()
    made.horizon = 40
    made.add(greedy([1], 5))
    made.add(greedy([2], 12))
    follow(made, {})
    assert executor.steps == [1, 4, 7]


def test_what_arrives_ends_a_run_at_its_next_step() -> None:
    made, executor = engine()
    made.horizon = 40
    first = made.add(greedy([1, 2], 30))
    heard: dict[int, Heard] = {}
    step(made, heard)

    def arrive(steps: int) -> None:
        executor.interrupted = steps >= 3

    executor.during = arrive
    step(made, heard)
    executor.interrupted, executor.during = False, lambda steps: None
    second = made.add(greedy([3, 4], 10))
    follow(made, heard)
    assert executor.steps[:3] == [1, 3, 1]
    assert heard[first].tokens == continuation([1, 2], 30)
    assert heard[second].tokens == continuation([3, 4], 10)


def test_who_arrives_finds_half_of_what_was_free() -> None:
    made, executor = engine(blocks=24)
    made.horizon = 80
    made.add(greedy([1, 2], 90))
    executor.interrupted = True
    heard: dict[int, Heard] = {}
    step(made, heard)
    step(made, heard)
    assert made.load.kv_used <= 0.5
    late = made.add(greedy([9] * 36, 4))
    step(made, heard)
    assert made.load.running == 2
    executor.interrupted = False
    assert follow(made, heard)[late].tokens == continuation([9] * 36, 4)


def test_a_run_in_a_machine_grown_slow_is_cut() -> None:
    made, executor = engine()
    now = [0.0]
    executor.runner._clock = lambda: now[0]

    def slow(steps: int) -> None:
        now[0] += 0.4 * LONGEST_RUN_SECONDS

    executor.during = slow
    made.horizon = 40
    key = made.add(greedy([1], 30))
    assert follow(made, {})[key].tokens == continuation([1], 30)
    assert max(executor.steps) == 4


def test_what_a_run_computed_is_found_by_others() -> None:
    made, _ = engine()
    made.horizon = 40
    key = made.add(greedy([5, 6], 15))
    answer = follow(made, {})[key].tokens
    again = made.add(greedy([5, 6, *answer], 4))
    assert follow(made, {})[again].tokens == continuation([5, 6, *answer], 4)
    assert made.load.prefix_hits == 16


@pytest.mark.parametrize("horizon", [1, 3, 40])
def test_a_fault_within_a_run_costs_nothing_that_came_before(horizon: int) -> None:
    made, executor = engine()
    made.horizon = horizon
    whole = executor.runner._model.forward

    def failing(batch: Batch) -> torch.Tensor:
        if batch.longest_context >= 12:
            raise RuntimeError("out of memory")
        return whole(batch)

    executor.runner._model.forward = failing  # type: ignore[method-assign]
    key = made.add(greedy([1, 2, 3], 30))
    heard = follow(made, {})[key]
    assert heard.tokens == continuation([1, 2, 3], 9)
    assert (heard.finish, heard.error) == ("error", "RuntimeError: out of memory")
    executor.runner._model.forward = whole  # type: ignore[method-assign]
    again = made.add(greedy([1, 2, 3], 30))
    assert follow(made, {})[again].tokens == continuation([1, 2, 3], 30)


@pytest.mark.parametrize("horizon", [1, 3, 40])
def test_logits_that_are_no_numbers_within_a_run(horizon: int) -> None:
    made, executor = engine()
    made.horizon = horizon
    model = executor.runner._model
    whole = model.forward

    def broken(batch: Batch) -> torch.Tensor:
        logits = whole(batch)
        logits[batch.contexts.numpy() == 12] = torch.nan
        model.cache[model.cache == 77] = -1  # type: ignore[attr-defined]  # what it cached is worth nothing either
        return logits

    model.forward = broken  # type: ignore[method-assign]
    ill = made.add(Submit(0, (1, 2, 3), SamplingParams(temperature=0.0, max_tokens=30, logprobs=0, ignore_eos=True), 0))
    sound = made.add(greedy([4], 8))
    heard = follow(made, {})
    assert heard[ill].tokens == continuation([1, 2, 3], 9)
    assert len(heard[ill].logprobs) == 9
    assert heard[ill].finish == "error"
    assert "no numbers" in str(heard[ill].error)
    assert heard[sound].tokens == continuation([4], 8)
    assert made.load.generated_tokens == 17


def test_a_block_that_ends_in_broken_logits_is_not_found_by_others() -> None:
    """The step that fills the third block is the one that breaks: two blocks are left to be found."""
    made, executor = engine()
    whole = executor.runner._model.forward

    def broken(batch: Batch) -> torch.Tensor:
        logits = whole(batch)
        logits[batch.contexts.numpy() == 12] = torch.nan
        return logits

    executor.runner._model.forward = broken  # type: ignore[method-assign]
    made.add(greedy([1, 2, 3], 30))
    follow(made, {})
    executor.runner._model.forward = whole  # type: ignore[method-assign]
    made.add(greedy([1, 2, 3, *continuation([1, 2, 3], 20)], 2))
    follow(made, {})
    assert made.load.prefix_hits == 8


def test_chunks_of_a_prompt_that_ends_in_broken_logits_are_not_found_by_others() -> None:
    """What broke may be in any chunk, and only the last one tells."""
    made, executor = engine(step_tokens=16)
    whole = executor.runner._model.forward
    prompt = [1, 2, 3, *continuation([1, 2, 3], 40)]

    def broken(batch: Batch) -> torch.Tensor:
        logits = whole(batch)
        if len(logits) and int(batch.contexts[-1]) == len(prompt):
            logits[-1] = torch.nan
        return logits

    executor.runner._model.forward = broken  # type: ignore[method-assign]
    made.add(greedy(prompt, 4))
    follow(made, {})
    executor.runner._model.forward = whole  # type: ignore[method-assign]
    made.add(greedy(prompt, 2))
    follow(made, {})
    assert made.load.prefix_hits == 0
    made.add(greedy(prompt, 2))
    follow(made, {})
    assert made.load.prefix_hits > 0


class Told:
    """Rank 0's world: notes what it tells."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.told: list[list[int]] = []

    def share(self, values: list[int], count: int) -> list[int]:
        assert len(values) == count
        self.told.append(values)
        return values


class Hearing:
    """Another rank's: hears what rank 0 told."""

    rank, size = 1, 2

    def __init__(self, told: list[list[int]]) -> None:
        self.told = list(told)

    def share(self, values: list[int], count: int) -> list[int]:
        heard = self.told.pop(0)
        assert len(heard) == count
        return heard


def rank(world: Told | Hearing) -> tuple[Runner, Remembering]:
    model = Remembering()
    model.allocate(16, 4)
    sampler = Sampler(VOCAB, 2, ENDS) if world.rank == 0 else None
    made = Runner(
        model,
        sampler,
        slots=2,
        context_tokens=60,
        block_tokens=4,
        end_tokens=ENDS,
        world=world,
        clock=lambda: 0.0,  # type: ignore[arg-type]
    )
    return made, model


def plan(number: int, starts: list[int], inputs: list[int], steps: int, **more: tuple) -> Plan:  # type: ignore[type-arg]
    arrays = [np.array(each, np.int32) for each in ([0, 1], starts, [1, 1], inputs, [0, 1])]
    return Plan(number, (), more.get("joins", ()), more.get("blocks", ()), *arrays, steps=steps)


@pytest.mark.parametrize("cut", [1, 2, 5, 99])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ranks_agree_on_every_token_and_on_when_to_leave(cut: int, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, max_tokens=40)
    joins = tuple(Join(slot, (slot + 3,), (), params, 5, slot) for slot in range(2))
    blocks = ((0, (3, 1, 4)), (1, (8, 9, 2)))
    world = Told()
    first, model = rank(world)
    asked = 0

    def interrupted() -> bool:
        nonlocal asked
        asked += 1
        return asked >= cut

    given = plan(1, [0, 0], [3, 4], 11, joins=joins, blocks=blocks)
    result = first.execute(given, interrupted)
    assert result is not None
    second, copy = rank(Hearing(world.told))
    assert second.execute(given) is None
    assert second._world.told == []  # type: ignore[attr-defined]
    assert (copy.cache == model.cache).all()
    ended = min((at % result.steps + 1 for at, token in enumerate(result.tokens) if token in ENDS), default=11)
    assert result.steps == min(cut, ended, 11)
    assert len(result.tokens) == 2 * result.steps


def test_who_breaks_a_run_among_others_breaks_the_gang() -> None:
    made, model = rank(Told())
    whole: Callable[[Batch], torch.Tensor] = model.forward

    def failing(batch: Batch) -> torch.Tensor:
        if batch.longest_context == 3:
            raise RuntimeError("lost")
        return whole(batch)

    model.forward = failing  # type: ignore[method-assign]
    params = SamplingParams(temperature=0.0, ignore_eos=True)
    joins = tuple(Join(slot, (slot + 3,), (), params, 5, slot) for slot in range(2))
    with pytest.raises(RuntimeError, match="lost"):
        made.execute(plan(1, [0, 0], [3, 4], 5, joins=joins, blocks=((0, (3,)), (1, (8,)))))
