"""The engine's thread: what is posted while a run of several steps is under way, and what is told when."""

from collections.abc import Callable, Hashable, Mapping
from queue import Queue

import pytest

from actors.engine.thread import EngineThread
from actors.messages import Cancel, Delta, Load, SamplingParams, Submit
from cluster.errors import StrataError
from tests.actors.engine.remembering import continuation, engine

LONG = SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True)


class Stage:
    """A thread over the remembering model whose runs are forty steps long, and what it published."""

    def __init__(self) -> None:
        self.engine, self.executor = engine(blocks=200)
        self.engine.horizon = 40
        self.told: Queue[tuple[Hashable, Delta]] = Queue()
        self.frames: list[int] = []  # how many deltas each publication had
        self.loads: list[Load] = []
        self.lost: list[StrataError] = []
        self.thread = EngineThread(self.engine, self._publish, self.lost.append, clock=lambda: 0.0)

    def _publish(self, deltas: Mapping[Hashable, list[Delta]], load: Load) -> None:
        self.loads.append(load)
        self.frames.append(sum(map(len, deltas.values())))
        for owner, each in deltas.items():
            for delta in each:
                self.told.put((owner, delta))

    def at(self, step: int, act: Callable[[], None]) -> None:
        """Do it once, after that step of the first run that has so many."""

        def during(steps: int) -> None:
            if steps == step:
                self.executor.during = lambda steps: None
                act()

        self.executor.during = during

    def until_end(self, owner: Hashable, number: int) -> list[Delta]:
        """All that is told of one sequence; what is told of others meanwhile is dropped."""
        heard: list[Delta] = []
        while not heard or heard[-1].finish is None:
            who, delta = self.told.get(timeout=20)
            if (who, delta.id) == (owner, number):
                heard.append(delta)
        return heard


@pytest.fixture
def stage():  # type: ignore[no-untyped-def]
    made = Stage()
    yield made
    made.thread.close()
    assert not made.lost


def tokens(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.tokens]


def test_a_cancel_ends_the_run_and_the_sequence(stage: Stage) -> None:
    stage.at(3, lambda: stage.thread.post("a", Cancel(1)))
    stage.thread.post("a", Submit(1, (1, 2), LONG, 0))
    stage.thread.start()
    heard = stage.until_end("a", 1)
    assert heard[-1].finish == "cancelled"
    assert tokens(heard) == continuation((1, 2), 4)
    assert stage.executor.steps == [1, 3]
    assert stage.loads[-1].kv_used == 0.0


def test_a_submit_joins_at_the_next_step(stage: Stage) -> None:
    stage.at(5, lambda: stage.thread.post("b", Submit(1, (9,), SamplingParams(temperature=0.0, max_tokens=3), 0)))
    stage.thread.post("a", Submit(1, (1, 2), LONG, 0))
    stage.thread.start()
    heard = stage.until_end("b", 1)
    assert tokens(heard) == continuation((9,), 3)
    assert stage.executor.steps[:4] == [1, 5, 1, 2]
    stage.thread.post("a", Cancel(1))


def test_a_gateway_that_goes_ends_its_run_and_hears_no_more(stage: Stage) -> None:
    stage.at(2, lambda: stage.thread.forget("a"))
    stage.thread.post("a", Submit(1, (1, 2), LONG, 0))
    stage.thread.post("b", Submit(1, (3,), SamplingParams(temperature=0.0, max_tokens=60), 0))
    stage.thread.start()
    assert tokens(stage.until_end("b", 1)) == continuation((3,), 60)
    assert stage.executor.steps[:2] == [1, 2]
    stage.thread.close()
    assert stage.loads[-1].kv_used == 0.0
    told = [stage.told.get_nowait() for _ in range(stage.told.qsize())]
    assert not [delta for owner, delta in told if owner == "a" and delta.finish]


def test_closing_within_a_run_tells_what_there_was_and_then_the_end(stage: Stage) -> None:
    stage.at(7, stage.thread.close)
    stage.thread.post("a", Submit(1, (1, 2), LONG, 0))
    stage.thread.start()
    heard = stage.until_end("a", 1)
    assert tokens(heard) == continuation((1, 2), 8)
    assert heard[-1].error is not None
    assert heard[-1].error[0] == "Unavailable"


def test_what_is_posted_to_a_closing_thread_is_answered(stage: Stage) -> None:
    def act() -> None:
        stage.thread.close()
        stage.thread.post("a", Submit(2, (3,), LONG, 0))

    stage.at(1, act)
    stage.thread.post("a", Submit(1, (1, 2), LONG, 0))
    stage.thread.start()
    assert stage.until_end("a", 2)[-1].error is not None


def test_runs_are_told_together_and_what_somebody_waits_for_at_once(stage: Stage) -> None:
    """The clock stands still: only an answer, a first token and an end are urgent."""
    params = SamplingParams(temperature=0.0, max_tokens=150, ignore_eos=True, logprobs=0)
    stage.thread.post("a", Submit(1, (1, 2), params, 0))
    stage.thread.start()
    heard = stage.until_end("a", 1)
    assert stage.executor.steps == [1, 40, 40, 40, 29]
    assert [len(delta.tokens) for delta in heard] == [0, 1, 149]
    assert heard[1].prefill_seconds > 0
    assert tokens(heard) == continuation((1, 2), 150)
    assert [told.token for delta in heard for told in delta.logprobs] == tokens(heard)
    assert stage.frames[:2] == [2, 1]
