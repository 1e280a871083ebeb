"""A gang of local ranks under the offline entry: Ctrl-C, a death within a sum, and runs of any length."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.channel import Alive
from actors.engine import LLM, SamplingParams
from cluster.errors import ReplicaLost
from tests.actors.engine import test_llm

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)

folder = test_llm.folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[LLM]:
    with LLM(folder, dtype="float32", kv_cache_tokens=4096) as made:
        yield made


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[LLM]:
    with LLM(folder, dtype="float32", kv_cache_tokens=4096, tensor_parallel_size=2) as made:
        yield made


def test_ctrl_c_ends_what_is_asked_and_not_the_gang(pair: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sends it to every process of ours at once."""
    assert pair._gang is not None
    whole = pair.generate("abc", GREEDY)
    channel = pair._gang._channel
    receive = channel.receive_result

    def pressed(alive: Alive) -> bytes:
        monkeypatch.setattr(channel, "receive_result", receive)
        for rank in pair._gang.facts:  # type: ignore[union-attr]
            os.kill(rank.pid, signal.SIGINT)
        raise KeyboardInterrupt

    monkeypatch.setattr(channel, "receive_result", pressed)
    with pytest.raises(KeyboardInterrupt):
        pair.generate("def", GREEDY)
    assert pair.engine.load.kv_used == 0.0
    assert pair.generate("abc", GREEDY) == whole


def test_a_rank_that_dies_in_a_sum_takes_the_gang_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank sleeps in that sum for ever: the leader notices, and ends it."""
    gang = LLM(folder, dtype="float32", kv_cache_tokens=4096, tensor_parallel_size=2)
    assert gang._gang is not None
    channel = gang._gang._channel
    receive, doomed = channel.receive_result, gang._gang.facts[1].pid
    os.kill(doomed, signal.SIGSTOP)  # it takes part in nothing more

    def killed(alive: Alive) -> bytes:
        os.kill(doomed, signal.SIGKILL)
        return receive(alive)

    monkeypatch.setattr(channel, "receive_result", killed)
    with pytest.raises(ReplicaLost, match="rank 1"):
        gang.generate("abc", GREEDY)
    processes = list(gang._gang._launcher._processes)  # type: ignore[attr-defined]
    gang.close()
    assert all(process.poll() is not None for process in processes)


@pytest.mark.parametrize("which", ["alone", "pair"])
def test_stop_strings_and_ends_do_not_depend_on_how_far_is_planned(
    which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: LLM = request.getfixturevalue(which)
    plain = made.generate("hello", GREEDY)[0].outputs[0].text
    kinds = [
        SamplingParams(temperature=0.0, max_tokens=40, stop=[plain[5:7]], logprobs=1),
        SamplingParams(temperature=1.0, seed=7, max_tokens=40, n=3, logprobs=0),
        SamplingParams(temperature=0.9, seed=8, max_tokens=33, min_tokens=20, top_p=0.8, frequency_penalty=0.5),
    ]
    answers = []
    for ahead in (1, 5, 128):
        monkeypatch.setattr(made.engine, "_horizon", lambda ahead=ahead: ahead)
        outputs = [request.outputs for request in made.generate(["hello"] * len(kinds), kinds)]
        answers.append([(o.text, o.token_ids, o.logprobs, o.finish_reason) for each in outputs for o in each])
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0][3] == "stop"
