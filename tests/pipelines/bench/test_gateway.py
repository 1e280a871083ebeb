import json

import httpx
import pytest

from pipelines.bench.figures import Load
from pipelines.bench.gateway import ask, body


def test_prompts_differ_from_the_first_word_on() -> None:
    bodies = [body("m", Load((1,), 2, 8, 4), index)["prompt"].split()[0] for index in range(3)]
    assert len(set(bodies)) == 3


@pytest.mark.parametrize("status", [200, 503])
async def test_a_stream_is_read_to_its_usage(status: int) -> None:
    events = [{"choices": [{"text": "a"}]}, {"choices": [], "usage": {"completion_tokens": 5}}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text=text))
    async with httpx.AsyncClient(base_url="http://gateway", transport=transport) as http:
        sample = await ask(http, body("m", Load((1,), 1, 8, 5), 0))
    assert bool(sample.failed) is (status == 503)
    assert sample.tokens == (5 if status == 200 else 0)


def test_nothing_is_asked_twice() -> None:
    load = Load((1,), 2, 8, 4)
    assert len({body("m", load, 0)["prompt"] for _ in range(20)}) > 15
