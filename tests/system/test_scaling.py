"""A model that scales beside one that does not: to none and awake again under a request, up and down by load."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from actors.directory import Entry
from pipelines.cli import serving
from tests.system.conftest import MODEL, Stack, also, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

SLEEPER = "sleeper"
SCALING = {"min": 0, "max": 2, "idle_seconds": 4.0, "down_seconds": 2.0, "running": 0.5}
QUESTION = [{"role": "user", "content": "What is 12 times 9?"}]


@pytest.fixture(scope="module")
def scaled(stack: Stack) -> Iterator[Stack]:
    """The shared stack with one model more, whose deploy proves a gang before it may sleep."""

    def edit(settings: dict[str, Any]) -> None:
        more = {**settings["models"][0], "name": SLEEPER, "tensor_parallel_size": 1, "scaling": SCALING}
        more["limits"] = {**more["limits"], "running_sequences": 2}
        del more["replicas"]
        settings["models"].append(more)
        settings["gateway"]["hold_seconds"] = 120.0  # a gang takes long to start where much else runs

    until(lambda: len(stack.entries()) == 2)
    others = set(stack.entries())
    with also(stack, edit):
        yield stack
        assert {entry for entry in stack.entries() if entry.model == MODEL} == others, "another model's gangs stay"


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0, timeout=120) as made:
        yield made


def gangs(stack: Stack) -> list[Entry]:
    return [entry for entry in stack.entries() if entry.model == SLEEPER]


def ask(client: openai.OpenAI, tokens: int = 8) -> int:
    """Tokens of an answer."""
    answer = client.chat.completions.create(
        model=SLEEPER, messages=QUESTION, max_tokens=tokens, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    return answer.usage.completion_tokens


def test_whom_nobody_asks_sleeps_and_a_request_wakes_it(scaled: Stack, client: openai.OpenAI) -> None:
    until(lambda: not gangs(scaled))
    until(lambda: serving.scaling()[SLEEPER]["wanted"] == 0)
    ready = scaled.get("/ready")
    assert (ready.status_code, ready.json()["models"]) == (200, {MODEL: True, SLEEPER: True})
    assert ask(client) == 8
    assert len(gangs(scaled)) == 1
    until(lambda: not gangs(scaled))
    with ThreadPoolExecutor(4) as pool:  # and all that come together
        assert list(pool.map(lambda _: ask(client), range(4))) == [8] * 4


def test_it_grows_under_load_and_shrinks_after_it_and_nobody_notices(scaled: Stack, client: openai.OpenAI) -> None:
    over, outcomes = threading.Event(), Counter[str]()

    def keep_asking(tokens: int, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                outcomes[str(ask(client, tokens) == tokens)] += 1
            except openai.APIError as error:
                outcomes[repr(error)] += 1

    calm = threading.Event()
    crowd = [threading.Thread(target=keep_asking, args=(400, over)) for _ in range(6)]
    last = threading.Thread(target=keep_asking, args=(8, calm))
    for thread in (*crowd, last):
        thread.start()
    until(lambda: len(gangs(scaled)) == 2)
    decided = serving.scaling()[SLEEPER]
    assert (decided["wanted"], decided["min"], decided["max"]) == (2, 0, 2)
    assert "of the target" in decided["reason"]
    over.set()
    until(lambda: len(gangs(scaled)) == 1)  # while one still asks
    calm.set()
    for thread in (*crowd, last):
        thread.join()
    assert set(outcomes) == {"True"}, outcomes
    until(lambda: not gangs(scaled))
