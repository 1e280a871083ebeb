import json
from typing import Any

import httpx
import pytest
import ray

from cluster.errors import NotFound, Unavailable
from pipelines import driver
from pipelines.driver import AsyncClient, Client, connect


def gateway(request: httpx.Request) -> httpx.Response:
    """As much of a gateway as a client can tell apart."""
    body: Any = json.loads(request.content or "null")
    if request.url.path == "/v1/models":
        return httpx.Response(200, json={"data": [{"id": "first"}, {"id": "second"}]})
    if body["model"] == "lost":
        return httpx.Response(503, json={"error": {"message": "the gang died", "param": None}})
    if body.get("stream"):
        events = [{"choices": [{"delta": {"content": piece}}]} for piece in ("Hel", "lo")]
        end = [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
        broken = [{"error": {"message": "cut"}}] if body["model"] == "cut" else []
        lines = [f"data: {json.dumps(event)}\n\n" for event in events + broken + end]
        return httpx.Response(200, text=": a comment\n\n" + "".join(lines) + "data: [DONE]\n\n")
    text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    shape = {"message": {"content": text.upper()}} if "messages" in body else {"text": text[::-1]}
    choice = {"finish_reason": "stop", **shape}
    return httpx.Response(200, json={"choices": [choice], "model": body["model"], "usage": {"total_tokens": 3}})


@pytest.fixture
def client() -> Client:
    return Client(httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(gateway)))


def test_chat_complete_and_models(client: Client) -> None:
    with client as strata:
        assert strata.models() == ["first", "second"]
        answer = strata.chat("hello")
        assert (answer.text, answer.finish_reason, answer.model) == ("HELLO", "stop", "first")
        assert answer.usage == {"total_tokens": 3}
        assert strata.chat([{"role": "user", "content": "x"}], "second").model == "second"
        assert strata.complete("abc").text == "cba"


def test_a_stream_gives_its_pieces(client: Client) -> None:
    assert list(client.stream("hi")) == ["Hel", "lo"]


def test_an_error_in_a_stream_is_raised_after_what_came(client: Client) -> None:
    pieces = client.stream("hi", "cut")
    assert [next(pieces), next(pieces)] == ["Hel", "lo"]
    with pytest.raises(Unavailable, match="cut"):
        next(pieces)


def test_a_refused_stream_says_why(client: Client) -> None:
    with pytest.raises(Unavailable, match="the gang died"):
        list(client.stream("hi", "lost"))


async def test_the_same_for_coroutines() -> None:
    http = httpx.AsyncClient(base_url="http://gateway", transport=httpx.MockTransport(gateway))
    async with AsyncClient(http) as strata:
        assert await strata.models() == ["first", "second"]
        assert (await strata.chat("hello")).text == "HELLO"
        assert (await strata.complete("abc")).text == "cba"
        assert [piece async for piece in strata.stream("hi")] == ["Hel", "lo"]
        with pytest.raises(Unavailable):
            await strata.chat("hi", "lost")


class Dying:
    """A gateway that dies after each event, and is away once before it goes on: in one of the ways there are."""

    def __init__(self, death: str, goes_on: bool = True) -> None:
        self.death, self.goes_on, self.asked = death, goes_on, []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "first"}]})
        last = request.headers.get("last-event-id", "")
        self.asked.append(last)
        if last and not self.goes_on:
            return httpx.Response(404, json={"error": {"message": "no stream x", "code": "not_found"}})
        if self.asked.count(last) == 1 and last:
            if self.death == "refused":
                return httpx.Response(503, text="no server is there")
            raise httpx.ConnectError("nobody listens")
        number = int(last.rpartition("-")[2]) if last else 0
        if number == 3:
            return httpx.Response(200, text="id: x-4\ndata: [DONE]\n\n")
        event = {"choices": [{"delta": {"content": "abc"[number]}}]}
        half = 'id: x-9\ndata: {"choices": [{"delta": {"content": "twice"}}]}\n'  # the line that ends it never came
        return httpx.Response(200, text=f"id: x-{number + 1}\ndata: {json.dumps(event)}\n\n{half}")


@pytest.mark.parametrize("death", ["refused", "away"])
async def test_a_stream_that_is_cut_goes_on_after_its_last_event(monkeypatch: pytest.MonkeyPatch, death: str) -> None:
    monkeypatch.setattr(driver, "PAUSE_SECONDS", 0.0)
    dying = Dying(death)
    with Client(httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(dying))) as strata:
        assert list(strata.stream("hi")) == ["a", "b", "c"]
    assert dying.asked == ["", "x-1", "x-1", "x-2", "x-2", "x-3", "x-3"]
    dying = Dying(death)
    http = httpx.AsyncClient(base_url="http://gateway", transport=httpx.MockTransport(dying))
    async with AsyncClient(http) as strata:
        assert [piece async for piece in strata.stream("hi")] == ["a", "b", "c"]


def test_a_stream_that_cannot_go_on_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PAUSE_SECONDS", 0.0)
    with Client(httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(Dying("", False)))) as strata:
        pieces = strata.stream("hi")
        assert next(pieces) == "a"
        with pytest.raises(NotFound, match="no stream x"):
            next(pieces)
    clock = iter([0.0, 1.0, 1.0 + driver.RESUME_SECONDS, 2.0 + driver.RESUME_SECONDS])
    heard = driver.Heard(lambda: next(clock))
    heard.take("id: x-1")
    heard.take("")
    assert heard.pause() == 0.0
    with pytest.raises(Unavailable, match="it ended in its midst"):
        heard.pause()


def test_nobody_there_is_one_sentence() -> None:
    with connect("http://127.0.0.1:1", "key") as strata, pytest.raises(Unavailable, match="strata status"):
        strata.models()


def test_no_proxy_of_the_environment_sees_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    monkeypatch.setenv("STRATA_API_KEY", "sk-mine")
    with connect("http://127.0.0.1:1") as strata:
        assert strata.http.headers["authorization"] == "Bearer sk-mine"
        assert not [mount for mount in strata.http._mounts.values() if mount is not None]


def test_the_address_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_CLUSTER__HTTP_PORT", "8123")
    assert driver.locate().endswith(":8123")
    monkeypatch.setenv("STRATA_URL", "http://elsewhere")
    assert driver.locate() == "http://elsewhere"


@pytest.mark.parametrize(
    ("host", "proxies", "found"),
    [
        ("127.0.0.1", "every_node", "http://127.0.0.1:8000"),
        ("127.0.0.1", "head", "http://10.0.0.9:8000"),
        ("0.0.0.0", "every_node", "http://10.0.0.9:8000"),
    ],
)
def test_a_driver_asks_its_own_node_where_http_stays_on_loopback(
    monkeypatch: pytest.MonkeyPatch, host: str, proxies: str, found: str
) -> None:
    head = {"Alive": True, "NodeManagerAddress": "10.0.0.9", "Resources": {"node:__internal_head__": 1.0}}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {}}, head])
    monkeypatch.setenv("STRATA_CLUSTER__HOST", host)
    monkeypatch.setenv("STRATA_CLUSTER__PROXIES", proxies)
    assert driver.locate() == found
