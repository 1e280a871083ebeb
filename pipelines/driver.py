"""A client for Python scripts, synchronous and asynchronous: `from pipelines.driver import connect`.

Speaks HTTP to the gateway and nothing else, so a script may run inside the cluster or anywhere. Knows how to find
the gateway from a driver of its Ray cluster.

    with connect() as strata:
        print(strata.chat("What is 7 times 8?").text)
        for piece in strata.stream("Tell me about Strata."):
            print(piece, end="")
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from cluster.errors import Unavailable
from pipelines.refusals import refusal, told

Messages = str | Sequence[Mapping[str, Any]]
CHAT = "/v1/chat/completions"
RESUME_SECONDS = 60.0  # how long a stream that was cut is asked for again
PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """One finished answer. `usage` counts tokens in the API's names."""

    text: str
    finish_reason: str | None
    model: str
    usage: Mapping[str, Any] = field(default_factory=dict)


def connect(url: str | None = None, api_key: str | None = None, *, timeout: float = 600.0) -> "Client":
    """A client of the gateway at `url`; without one, of the gateway that this machine or this Ray cluster has.

    `timeout` is the seconds that the gateway may be silent. Without `api_key`, STRATA_API_KEY counts, then the key
    of the person who started Strata on this machine.
    """
    found = url or locate()
    return Client(httpx.Client(base_url=found, headers=_headers(api_key), timeout=timeout, trust_env=False))


def connect_async(url: str | None = None, api_key: str | None = None, *, timeout: float = 600.0) -> "AsyncClient":
    """`connect` for coroutines."""
    found = url or locate()
    return AsyncClient(httpx.AsyncClient(base_url=found, headers=_headers(api_key), timeout=timeout, trust_env=False))


def locate() -> str:
    """The gateway's address: STRATA_URL, or what the settings say, on the node of this Ray cluster that has it.

    Where HTTP stays on loopback nobody reaches another node's proxy: then it is this node's own, if every node has one.
    """
    from pipelines.settings import load  # noqa: PLC0415 - a script that names the address needs no settings

    if given := os.environ.get("STRATA_URL"):
        return given
    cluster = load(None, os.environ).settings.cluster
    import ray  # noqa: PLC0415 - as above

    from cluster.runtime import HEAD  # noqa: PLC0415 - as above

    if not ray.is_initialized() or (cluster.loopback and cluster.proxies == "every_node"):
        return cluster.url
    head = next((node for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]), None)
    return f"http://{head['NodeManagerAddress']}:{cluster.http_port}" if head else cluster.url


class Client:
    """Asks the gateway and waits."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, wrong: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()

    def models(self) -> list[str]:
        """The names of the models that are served."""
        return [model["id"] for model in self.request("GET", "/v1/models")["data"]]

    def chat(self, messages: Messages, model: str | None = None, **sampling: Any) -> Answer:
        """The answer to a conversation, or to one sentence."""
        body = chat_body(messages, model or self.models()[0], sampling)
        return chat_answer(self.request("POST", CHAT, body))

    def complete(self, prompt: str, model: str | None = None, **sampling: Any) -> Answer:
        """What follows `prompt`."""
        body = {"model": model or self.models()[0], "prompt": prompt, **sampling}
        return completion_answer(self.request("POST", "/v1/completions", body))

    def stream(self, messages: Messages, model: str | None = None, **sampling: Any) -> Iterator[str]:
        """The answer to a conversation, piece by piece. Leaving the loop cancels the rest.

        One that is cut, by a proxy's or a gateway's death, goes on where it was.
        """
        body = chat_body(messages, model or self.models()[0], sampling) | {"stream": True}
        heard = Heard()
        while True:
            try:
                with self.http.stream("POST", CHAT, json=body, headers=heard.headers) as response:
                    if response.is_error:
                        response.read()
                        heard.refused(response)
                    else:
                        for line in response.iter_lines():
                            yield from heard.take(line)
            except httpx.TransportError as wrong:
                heard.cut = unreachable(self.http.base_url, wrong)
            if heard.whole:
                return
            time.sleep(heard.pause())

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """What any path answers, as JSON has it."""
        try:
            return checked(self.http.request(method, path, json=body))
        except httpx.TransportError as wrong:
            raise unreachable(self.http.base_url, wrong) from None


class AsyncClient:
    """Asks the gateway and awaits."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type | None, wrong: BaseException | None, trace: TracebackType | None) -> None:
        await self.http.aclose()

    async def models(self) -> list[str]:
        """See `Client.models`."""
        return [model["id"] for model in (await self._request("GET", "/v1/models"))["data"]]

    async def chat(self, messages: Messages, model: str | None = None, **sampling: Any) -> Answer:
        """See `Client.chat`."""
        body = chat_body(messages, model or (await self.models())[0], sampling)
        return chat_answer(await self._request("POST", CHAT, body))

    async def complete(self, prompt: str, model: str | None = None, **sampling: Any) -> Answer:
        """See `Client.complete`."""
        body = {"model": model or (await self.models())[0], "prompt": prompt, **sampling}
        return completion_answer(await self._request("POST", "/v1/completions", body))

    async def stream(self, messages: Messages, model: str | None = None, **sampling: Any) -> AsyncIterator[str]:
        """See `Client.stream`."""
        body = chat_body(messages, model or (await self.models())[0], sampling) | {"stream": True}
        heard = Heard()
        while True:
            try:
                async with self.http.stream("POST", CHAT, json=body, headers=heard.headers) as response:
                    if response.is_error:
                        await response.aread()
                        heard.refused(response)
                    else:
                        async for line in response.aiter_lines():
                            for piece in heard.take(line):
                                yield piece
            except httpx.TransportError as wrong:
                heard.cut = unreachable(self.http.base_url, wrong)
            if heard.whole:
                return
            await asyncio.sleep(heard.pause())

    async def _request(self, method: str, path: str, body: Any = None) -> Any:
        try:
            return checked(await self.http.request(method, path, json=body))
        except httpx.TransportError as wrong:
            raise unreachable(self.http.base_url, wrong) from None


def chat_body(messages: Messages, model: str, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request's body; one sentence is one message of the user."""
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    return {"model": model, "messages": turns, **sampling}


def chat_answer(body: Mapping[str, Any]) -> Answer:
    """The first choice of a chat response."""
    choice = body["choices"][0]
    return Answer(choice["message"]["content"] or "", choice["finish_reason"], body["model"], body.get("usage") or {})


def completion_answer(body: Mapping[str, Any]) -> Answer:
    """The first choice of a completion response."""
    choice = body["choices"][0]
    return Answer(choice["text"], choice["finish_reason"], body["model"], body.get("usage") or {})


class Heard:
    """What has come of a streamed answer: whether it is whole, and the event after which it can be gone on with."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.whole = False
        self.cut = Unavailable("the answer", "it ended in its midst")
        self._clock = clock
        self._last = ""
        self._event: list[str] = []
        self._silent = clock()

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the rest."""
        return {"last-event-id": self._last} if self._last else {}

    def take(self, line: str) -> list[str]:
        """One more line; the pieces of text of an event that ends with it. Raises what an error in an event says."""
        if line:
            self._event.append(line)
            return []
        event, self._event = self._event, []
        self._silent = self._clock()
        found = []
        for each in event:
            if each == "data: [DONE]":
                self.whole = True
            elif each.startswith("data:"):
                found += pieces(json.loads(each.removeprefix("data:")))
        self._last = next((each.removeprefix("id: ") for each in event if each.startswith("id: ")), self._last)
        return found

    def refused(self, response: httpx.Response) -> None:
        """No answer began. Raises what was said, unless that may pass."""
        wrong = refusal(response)
        if not isinstance(wrong, Unavailable):
            raise wrong
        self.cut = wrong

    def pause(self) -> float:
        """Seconds to wait before asking for the rest. Raises `cut` where nothing can be gone on with, or for long."""
        self._event.clear()
        if not self._last or self._clock() - self._silent > RESUME_SECONDS:
            raise self.cut
        return PAUSE_SECONDS


def pieces(event: Mapping[str, Any]) -> list[str]:
    """The text of an event. Raises the error that one tells of."""
    if "error" in event:
        raise told(event["error"], Unavailable.status)
    choices = event.get("choices", ())
    return [text for choice in choices if (text := choice.get("delta", {}).get("content"))]


def checked(response: httpx.Response) -> Any:
    """The body of a response. Raises what `refusal` makes of an error."""
    if response.is_error:
        raise refusal(response)
    return response.json()


def unreachable(url: httpx.URL, wrong: httpx.TransportError) -> Unavailable:
    """A gateway that does not answer."""
    return Unavailable(f"the gateway at {url}", f"{str(wrong) or type(wrong).__name__}; is it up? See `strata status`")


def _headers(api_key: str | None) -> dict[str, str]:
    key = api_key or os.environ.get("STRATA_API_KEY") or _operator_key()
    return {"authorization": f"Bearer {key}"} if key else {}


def _operator_key() -> str | None:
    from pipelines.settings import load  # noqa: PLC0415 - only where no key was given

    try:
        return load(None, os.environ).settings.cluster.operator_key_file.read_text().strip()
    except OSError:
        return None
