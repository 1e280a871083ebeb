"""How urgent a request is, until when it is wanted, and that who cannot be served in time hears it at once."""

import pytest

from cluster.errors import DeadlineExceeded
from pipelines.chat import Served
from pipelines.gateway import generate
from pipelines.gateway.desk import Desk
from pipelines.gateway.generate import let_in
from pipelines.gateway.reply import Terms
from tests.pipelines.gateway.conftest import Stage
from tests.pipelines.gateway.fakes import full

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = {"model": "starter", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
PROMPT = {"model": "starter", "prompt": "hello", "max_tokens": 2}


@pytest.mark.parametrize(("path", "body"), [(CHAT, HELLO), (TEXT, PROMPT)])
async def test_priority_and_timeout_travel(stage: Stage, path: str, body: dict):
    async with stage.http() as http:
        for more in ({}, {"priority": 7, "timeout": 5}, {"timeout": 10**4}, {"priority": None, "timeout": None}):
            assert (await http.post(path, json=body | more)).status_code == 200
    assert stage.client.priorities == [0, 7, 0, 0]
    assert stage.client.deadlines == [pytest.approx(seconds, abs=3.0) for seconds in (600, 5, 600, 600)]


async def test_a_key_bounds_how_urgent_a_request_may_be(stage: Stage):
    nightly = stage.ring.issue("nightly", "acme", "user", created=2, priority=20)
    async with stage.http(nightly) as http:
        for asked, status in ((None, 200), (20, 200), (100, 200), (19, 400), (-100, 400)):
            answer = await http.post(CHAT, json=HELLO | {"priority": asked})
            assert answer.status_code == status, answer.text
        assert answer.json()["error"]["param"] == "priority"
        assert "20 and more" in answer.json()["error"]["message"]
    assert stage.client.priorities == [20, 20, 100]


@pytest.mark.parametrize(("path", "body"), [(CHAT, HELLO), (TEXT, PROMPT)])
async def test_who_would_wait_too_long_is_refused_before_anything_is_spent(
    stage: Stage, path: str, body: dict, monkeypatch: pytest.MonkeyPatch
):
    async def spent(*_: object) -> None:
        raise AssertionError("it was tokenized, or a schema compiled")

    for costly in ("chat_tokens", "text_tokens", "constrained"):
        monkeypatch.setattr(generate, costly, spent)
    stage.client.full = full()
    async with stage.http() as http:
        answer = await http.post(path, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["code"] == "queue_full"


async def test_it_is_weighed_by_its_tokens_once_they_are_known(stage: Stage):
    async with stage.http() as http:
        await http.post(TEXT, json=PROMPT | {"prompt": ["a" * 80, "b" * 160]})
        await http.post(TEXT, json=PROMPT | {"prompt": [1, 2, 3], "n": 4})
    early, exact, *ids = stage.client.admitted
    assert (early, exact) == (30, 240)  # a letter is a token here; a text has an eighth of its letters, at least
    assert ids == [3, 3]  # once for all four answers


def test_what_is_late_already_is_not_begun(stage: Stage):
    desk = Desk({}, stage.ring, stage.metrics, clock=lambda: 150.0)
    served = Served("starter", stage.client, stage.tokenizer)
    with pytest.raises(DeadlineExceeded, match="within 50 s"):
        let_in(desk, served, Terms(0, until=150.0, seconds=50.0), 9)
    assert not stage.client.admitted
    let_in(desk, served, Terms(0, until=150.1, seconds=50.0), 9)
    assert stage.client.admitted == [9]
