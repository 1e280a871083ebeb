"""What a step holds: prompts by the pace, decodes always, and no run of steps while a prompt is held back."""

from actors.engine.blocks import BlockPool
from actors.engine.pace import Pace, Shape
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence
from actors.engine.step import Step
from actors.messages import SamplingParams, Submit
from actors.settings import Limits

LIMITS = Limits(running_sequences=8, step_tokens=512)


def made(pace: Pace) -> Scheduler:
    return Scheduler(LIMITS, BlockPool(1000), pace)


def add(scheduler: Scheduler, key: int, prompt: int, answer: int = 100) -> Sequence:
    tokens = tuple(10_000 * key + at for at in range(prompt))
    submit = Submit(key, tokens, SamplingParams(max_tokens=answer), 0)
    sequence = Sequence.of(key, submit, prompt + answer, 0.0)
    scheduler.add(sequence)
    return sequence


def carry_out(scheduler: Scheduler, step: Step) -> Step:
    for work in step.works:
        if work.samples:
            work.sequence.tokens.append(0)
    scheduler.settle(step.works)
    return step


def slow_at_prompts() -> Pace:
    """A decode step takes 20 ms, a prompt token half a millisecond."""
    pace = Pace(2.0)
    for count in (16, 32, 48, 64) * 5:
        pace.learn(Shape(1, 50), 0.02)
        pace.learn(Shape(1, 50).chunk(0, count), 0.02 + 0.0005 * count)
    pace.learn(Shape(1, 50), 0.02)
    return pace


def test_the_shape_of_a_step() -> None:
    scheduler = made(Pace(None))
    add(scheduler, 1, 5)
    assert scheduler.plan(0.0).shape == Shape(0, 0, 5, 16 * 3.0)
    scheduler = made(Pace(None))
    add(scheduler, 1, 5)
    carry_out(scheduler, scheduler.plan(0.0))
    late = add(scheduler, 2, 600)
    assert carry_out(scheduler, scheduler.plan(0.0)).shape == Shape(1, 6, 511, 512 * 256)
    assert late.computed == 511
    assert scheduler.plan(0.0).shape == Shape(1, 7, 89, 96 * (511 + 45.0))


def test_prompts_join_an_answer_by_the_pace() -> None:
    scheduler = made(slow_at_prompts())
    add(scheduler, 1, 50)
    assert carry_out(scheduler, scheduler.plan(0.0)).works[0].count == 50, "nobody waits for a token yet"
    add(scheduler, 2, 1000)
    add(scheduler, 3, 1000)
    step = carry_out(scheduler, scheduler.plan(0.0))
    assert [(work.sequence.key, work.count) for work in step.works] == [(1, 1), (2, 24)], "within 40 ms, with a margin"
    assert scheduler.waiting == 1


def test_without_a_pace_prompts_fill_the_step() -> None:
    scheduler = made(Pace(None))
    add(scheduler, 1, 50)
    carry_out(scheduler, scheduler.plan(0.0))
    add(scheduler, 2, 300)
    add(scheduler, 3, 1000)
    assert [work.count for work in scheduler.plan(0.0).works] == [1, 300, 211]


def test_while_prompts_pause_no_run_begins() -> None:
    """What a decode step costs alone is looked at in one step, not in as many as fit a run."""
    pace = slow_at_prompts()
    scheduler = made(pace)
    add(scheduler, 1, 50)
    carry_out(scheduler, scheduler.plan(0.0))
    for _ in range(64):
        pace.learn(Shape(1, 50).chunk(0, 16), 0.036)
    add(scheduler, 2, 1000)
    step = carry_out(scheduler, scheduler.plan(0.0, horizon=40))
    assert (len(step.works), step.steps, step.rooms) == (1, 1, ())
    pace.learn(step.shape, 0.02)
    assert len(scheduler.plan(0.0, horizon=40).works) == 2


def test_a_run_begins_where_no_prompt_is_left() -> None:
    scheduler = made(slow_at_prompts())
    add(scheduler, 1, 50)
    carry_out(scheduler, scheduler.plan(0.0))
    assert scheduler.plan(0.0, horizon=40).steps == 40


def test_a_second_turn_computes_what_is_new_and_part_of_a_block() -> None:
    scheduler = made(Pace(2.0))
    first = add(scheduler, 1, 2000, answer=70)
    while scheduler.running or scheduler.waiting:
        carry_out(scheduler, scheduler.plan(0.0))
        if len(first.tokens) >= first.limit and first.slot >= 0:
            scheduler.remove(first)
    tokens = (*first.tokens, *range(30))
    second = Sequence.of(2, Submit(2, tokens, SamplingParams(max_tokens=1), 0), 3000, 0.0)
    scheduler.add(second)
    (work,) = scheduler.plan(0.0).works
    assert second.cached == 2064, "its answer's blocks are found, too: all but the last token drawn was computed"
    assert work.count == 2000 + 70 + 30 - 2064
    assert work.samples
