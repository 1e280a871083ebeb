"""The pace of prompts: against machines of known costs, whatever arrives, no gap of a running answer is too long."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from actors.engine.blocks import BlockPool
from actors.engine.pace import Costs, Pace, Shape
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence
from actors.messages import SamplingParams, Submit
from actors.settings import Limits

STRETCH, UNSEEN = 2.0, 0.016


@dataclass(frozen=True)
class Machine:
    """True seconds: weights are read once, or all rows multiplied, whichever takes longer; then attention."""

    read: float
    row: float
    key: float  # that a prompt token looks at
    cached: float  # token that a decode reads
    overhead: float = 0.0002

    def seconds(self, shape: Shape) -> float:
        rows = shape.decodes + shape.tokens
        return (
            self.overhead
            + (self.read**2 + (self.row * rows) ** 2) ** 0.5
            + self.key * shape.visits
            + self.cached * shape.read
        )


MACHINES = {
    "a small model on two cores": Machine(0.007, 250e-6, 40e-9, 200e-9),
    "the same in int4": Machine(0.0025, 330e-6, 40e-9, 200e-9),
    "half a billion on two cores": Machine(0.03, 900e-6, 150e-9, 600e-9),
    "eight billion on a GPU": Machine(0.006, 25e-6, 3e-9, 30e-9, 0.001),
    "a tiny one": Machine(0.0003, 12e-6, 4e-9, 5e-9, 0.0001),
}


@dataclass
class Run:
    """What was seen: every gap of a stream with what it would have been alone, and what steps computed."""

    gaps: list[tuple[float, float]] = field(default_factory=list)
    first_tokens: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    steps: list[Shape] = field(default_factory=list)

    def worst(self, share: float) -> float:
        """Of the gaps' ratios to the longest that is allowed, the one at `share`."""
        ratios = sorted(gap / max(STRETCH * alone, UNSEEN) for gap, alone in self.gaps)
        return ratios[min(len(ratios) - 1, int(share * len(ratios)))] if ratios else 0.0


def simulate(
    machine: Machine,
    arrivals: list[tuple[float, int, int]],
    *,
    stretch: float | None = STRETCH,
    noise: Callable[[], float] = lambda: 1.0,
    **limits: int,
) -> Run:
    """Let (second, prompt tokens, answer tokens) arrive; run until all are answered."""
    settled = Limits(gap_stretch=stretch, **{"running_sequences": 64, "step_tokens": 512, **limits})
    pace = Pace(stretch, UNSEEN)
    scheduler = Scheduler(settled, BlockPool(20_000), pace)
    run, live, coming = Run(), [], sorted(arrivals, reverse=True)
    key = 0
    while coming or live:
        if not live:
            run.seconds = max(run.seconds, coming[-1][0])
        while coming and coming[-1][0] <= run.seconds:
            _, prompt, answer = coming.pop()
            key += 1
            params = SamplingParams(max_tokens=answer)
            fresh = tuple(key * 10_000 + at for at in range(prompt))
            live.append(Sequence.of(key, Submit(key, fresh, params, 0), prompt + answer, run.seconds))
            scheduler.add(live[-1])
        step = scheduler.plan(run.seconds)
        assert step.works, "nothing moves"
        took = machine.seconds(step.shape) * noise()
        alone = machine.seconds(Shape(step.shape.decodes, step.shape.read))
        pace.learn(step.shape, took)
        run.seconds += took
        run.steps.append(step.shape)
        sampled = [work.sequence for work in step.works if work.samples]
        for sequence in sampled:
            sequence.tokens.append(0)
            if sequence.key in run.first_tokens:
                run.gaps.append((took, alone))
            else:
                run.first_tokens[sequence.key] = run.seconds
        scheduler.settle(step.works)
        for sequence in sampled:
            if len(sequence.tokens) >= sequence.limit:
                scheduler.remove(sequence)
                live.remove(sequence)
    assert len(run.first_tokens) == len(arrivals)
    return run


def noisy(seed: int, hiccups: float = 0.0) -> Callable[[], float]:
    """What a step's seconds are multiplied by: some percent, now and then a lot."""
    chance = random.Random(seed)
    return lambda: chance.lognormvariate(0.0, 0.04) * (5.0 if chance.random() < hiccups else 1.0)


def traffic(seed: int) -> list[tuple[float, int, int]]:
    """Some seconds of answers short and long, prompts of a few tokens or of thousands."""
    chance = random.Random(seed)
    rate, second, found = chance.choice((2.0, 10.0, 50.0)), 0.0, []
    for _ in range(40):
        second += chance.expovariate(rate)
        prompt = int(chance.choice((chance.uniform(1, 40), chance.uniform(100, 900), chance.uniform(1000, 4000))))
        found.append((second, prompt, chance.randint(1, 200)))
    return found


@pytest.mark.parametrize("name", MACHINES)
def test_a_long_prompt_among_sixteen_streams(name: str) -> None:
    arrivals = [(0.0, 64, 600)] * 16 + [(3.0, 4000, 10)]
    bound, free = (simulate(MACHINES[name], arrivals, stretch=stretch) for stretch in (STRETCH, None))
    assert bound.worst(0.99) <= 1.0
    took, fastest = bound.first_tokens[17] - 3.0, free.first_tokens[17] - 3.0
    assert took <= 2.6 * fastest, "half of the time is the prompt's, and small chunks cost a little more"


@pytest.mark.parametrize("name", MACHINES)
def test_no_gap_is_too_long_whatever_arrives(name: str) -> None:
    for seed in range(4):
        assert simulate(MACHINES[name], traffic(seed)).worst(0.99) <= 1.0


@pytest.mark.parametrize("name", MACHINES)
def test_steps_that_take_now_longer_now_less(name: str) -> None:
    """The noise alone brings the 99th percentile to 1.1 of the median."""
    for seed in range(2):
        assert simulate(MACHINES[name], traffic(seed), noise=noisy(seed)).worst(0.99) <= 1.1


def test_hiccups_do_not_mislead() -> None:
    machine = MACHINES["a small model on two cores"]
    for seed in range(3):
        assert simulate(machine, traffic(seed), noise=noisy(seed, hiccups=0.02)).worst(0.97) <= 1.1


def test_a_machine_that_gets_slower_is_noticed() -> None:
    """Another program takes half of it: gaps double with and without prompts, chunks shrink to what they cost now."""
    machine, seen = MACHINES["a small model on two cores"], iter(range(10**6))
    arrivals = [(0.0, 64, 600)] * 16 + [(at / 2, 1500, 5) for at in range(2, 40)]
    run = simulate(machine, arrivals, noise=lambda: 1.0 if next(seen) < 200 else 2.0)
    late = [gap / (2.0 * STRETCH * alone) for gap, alone in run.gaps[16 * 240 :]]
    assert sorted(late)[int(0.99 * len(late))] <= 1.0


@pytest.mark.parametrize("name", MACHINES)
def test_prompts_alone_are_as_fast_as_without_a_bound(name: str) -> None:
    arrivals = [(0.0, 50 + 300 * index, 1) for index in range(13)]
    bound, free = (simulate(MACHINES[name], arrivals, stretch=stretch) for stretch in (STRETCH, None))
    assert free.seconds >= 0.95 * bound.seconds


@pytest.mark.parametrize("name", MACHINES)
def test_a_queue_is_worked_off_as_fast_as_without_a_bound(name: str) -> None:
    arrivals = [(0.0, 64, 128)] * 150
    bound, free = (
        simulate(MACHINES[name], arrivals, stretch=stretch, running_sequences=32) for stretch in (STRETCH, None)
    )
    assert bound.seconds <= 1.05 * free.seconds


def test_a_late_chunk_is_smaller_than_an_early_one() -> None:
    pace = learned(MACHINES["half a billion on two cores"])
    assert pace.allow(16, 3200).chunk(3500, 500) < pace.allow(16, 3200).chunk(0, 500)


def test_more_streams_leave_a_prompt_no_less() -> None:
    pace = learned(MACHINES["half a billion on two cores"])
    assert pace.allow(1, 200).chunk(0, 500) <= pace.allow(16, 3200).chunk(0, 500)


def test_a_prompt_never_starves() -> None:
    pace = Pace(1.01)
    for _ in range(50):
        pace.learn(Shape(4, 400), 0.01)
        pace.learn(Shape(4, 400).chunk(0, 64), 0.1)
    allowed = pace.allow(4, 400)
    assert allowed.chunk(0, 500) == 16
    assert allowed.chunk(0, 500) == 0


def test_after_a_prompt_cut_short_no_other_joins() -> None:
    pace = learned(MACHINES["a small model on two cores"])
    allowed = pace.allow(16, 3200)
    assert 0 < allowed.chunk(0, 4000) < 4000
    assert allowed.chunk(0, 1) == 0


def test_short_prompts_join_together() -> None:
    pace = learned(MACHINES["a small model on two cores"])
    allowed = pace.allow(16, 3200)
    assert [allowed.chunk(0, 5) for _ in range(3)] == [5, 5, 5]


def test_now_and_then_a_step_goes_without_prompts() -> None:
    pace = learned(MACHINES["a small model on two cores"])
    for _ in range(64):
        assert not pace.allow(16, 3200).nothing
        pace.learn(Shape(16, 3200).chunk(0, 32), 0.02)
    assert pace.allow(16, 3200).nothing
    pace.learn(Shape(16, 3200), 0.01)
    assert not pace.allow(16, 3200).nothing


def test_nobody_to_wait_or_no_bound_is_no_bound() -> None:
    assert Pace(2.0).allow(0, 0).chunk(0, 512) == 512
    assert Pace(None).allow(64, 6400).chunk(0, 512) == 512


def test_before_anything_was_measured_little_joins() -> None:
    assert Pace(2.0).allow(1, 10).chunk(0, 512) == 16


def test_costs_are_found() -> None:
    """A machine that is as the model thinks: after some steps each part of its cost is known."""
    machine, costs, chance = Machine(0.0, 250e-6, 40e-9, 200e-9, 0.006), Costs(), random.Random(5)
    for _ in range(400):
        shape = Shape(chance.randint(1, 32), chance.randint(100, 20_000))
        if chance.random() < 0.5:
            shape = shape.chunk(chance.randint(0, 3000), chance.randint(1, 200))
        costs.learn(shape, machine.seconds(shape) * chance.lognormvariate(0.0, 0.02))
    for shape in (Shape(1, 100), Shape(32, 9000), Shape(8, 2000).chunk(3000, 128), Shape(16, 2000).chunk(0, 64)):
        assert costs.of(shape) == pytest.approx(machine.seconds(shape), rel=0.08)
        assert costs.doubtful(shape) < 0.15 * costs.of(shape)


def learned(machine: Machine) -> Pace:
    """What a pace is after a while on `machine`."""
    pace, chance = Pace(STRETCH, UNSEEN), random.Random(3)
    for _ in range(200):
        decodes = chance.randint(1, 20)
        shape = Shape(decodes, 200 * decodes)
        for part in (shape.chunk(chance.randint(0, 3000), chance.randint(1, 100)), shape):
            pace.learn(part, machine.seconds(part))
    return pace
