"""A spare gang: it answers nobody until the one that serves is lost, and then at once."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from actors.directory import Entry
from tests.system.conftest import Stack, also, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "guarded"
TOKENS, STREAMS = 3000, 4


@pytest.fixture
def guarded(stack: Stack) -> Iterator[Stack]:
    """The shared stack with one model more, that has a gang and a spare one."""
    until(lambda: len(stack.entries()) == 2)
    more = {"name": NAME, "tensor_parallel_size": 1, "replicas": 1, "spares": 1}
    with also(stack, lambda settings: settings["models"].append(settings["models"][0] | more)):
        yield stack


def gangs(stack: Stack) -> dict[str, Entry]:
    return {entry.replica: entry for entry in stack.entries() if entry.model == NAME}


def test_a_spare_gang_takes_the_place_of_one_that_is_lost(guarded: Stack) -> None:
    until(lambda: len(gangs(guarded)) == 2)
    before = gangs(guarded)

    def write() -> int:
        with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.key, max_retries=0, timeout=120) as client:
            answer = client.completions.create(
                model=NAME, prompt="On and on", max_tokens=TOKENS, extra_body={"ignore_eos": True}
            )
        assert answer.usage is not None
        return answer.usage.completion_tokens

    def busy() -> set[str]:
        return {name for name in before if guarded.running(name)}

    with ThreadPoolExecutor(STREAMS) as pool:
        answers = [pool.submit(write) for _ in range(STREAMS)]
        until(lambda: guarded.gauge("vllm:num_requests_running") == STREAMS)
        (serves,) = busy()
        (spare,) = set(before) - {serves}
        os.kill(before[serves].leader_pid, signal.SIGKILL)
        until(lambda: spare in busy())
        assert [answer.result() for answer in answers] == [TOKENS] * STREAMS
    until(lambda: len(gangs(guarded)) == 2 and serves not in gangs(guarded))
    assert spare in gangs(guarded)
    with ThreadPoolExecutor(STREAMS) as pool:  # and the new one is spare now
        answers = [pool.submit(write) for _ in range(STREAMS)]
        until(lambda: guarded.running(spare))
        (new,) = set(gangs(guarded)) - {spare}
        assert not guarded.running(new)
        assert [answer.result() for answer in answers] == [TOKENS] * STREAMS
