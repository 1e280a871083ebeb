"""Clients: so many streams at any time, and so many short requests a second, each told right from wrong.

Speaks plain HTTP. Knows nothing of faults.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import httpx

from cluster.errors import InvalidRequest, Overloaded, Unavailable
from pipelines.chaos.asks import Answer, Ask, Gathering, Heard, judge
from pipelines.chaos.story import NOTED_SECONDS, Record, Story

PATIENCE_SECONDS = 120.0  # of a client that hears nothing at all: longer than any gang takes to be made again
Expected = dict[str, Answer]


@asynccontextmanager
async def client(
    url: str, key: str, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """One client for all that is asked."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    headers = {"authorization": f"Bearer {key}"}
    timeout = httpx.Timeout(PATIENCE_SECONDS)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=timeout, trust_env=False, transport=transport
    ) as http:
        yield http


async def undisturbed(http: httpx.AsyncClient, asks: Sequence[Ask]) -> Expected:
    """What each is answered when nobody else is there; nothing of one that the model does not take, as tools.

    Raises Unavailable where one is not answered.
    """
    answers: Expected = {}
    for ask in asks:
        heard = await hear(http, replace(ask, leaves=None), lambda _: None)
        if heard.status == InvalidRequest.status:
            continue
        if heard.status != 200 or not heard.whole:
            raise Unavailable(f"{ask.path} ({ask.name})", heard.error or f"status {heard.status}")
        answers[ask.name] = heard.answer
    return answers


class Load:
    """Runs until `stop`; what is open then comes to its end."""

    def __init__(self, http: httpx.AsyncClient, expected: Expected, story: Story, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the story began."""
        self._http, self._expected, self._story, self._clock = http, expected, story, clock
        self._stopping = asyncio.Event()
        self.open = 0  # streams that have begun to answer and are not at their end

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    async def run(self, live: Sequence[Ask], streams: int, plain: Sequence[Ask], rate: float) -> None:
        """`streams` of `live` at any time, `rate` of `plain` a second."""
        async with asyncio.TaskGroup() as group:
            for number in range(streams):
                group.create_task(self._talk([live[(number + turn) % len(live)] for turn in range(len(live))]))
            if rate > 0:
                group.create_task(self._tick(group, plain, 1 / rate))

    async def _talk(self, asks: Sequence[Ask]) -> None:
        for ask in itertools.cycle(asks):
            if self._stopping.is_set():
                return
            await self._one(ask)

    async def _tick(self, group: asyncio.TaskGroup, asks: Sequence[Ask], every: float) -> None:
        begun = self._clock()
        for number, ask in enumerate(itertools.cycle(asks)):
            wait = begun + number * every - self._clock()
            try:
                async with asyncio.timeout(max(0.0, wait)):
                    await self._stopping.wait()
                return
            except TimeoutError:
                group.create_task(self._one(ask))

    async def _one(self, ask: Ask) -> None:
        record = Record(ask.name, ask.streams, self._clock())
        record.ended = float("inf")  # it is open
        self._story.records.append(record)
        last = record.began

        def came(characters: int) -> None:
            nonlocal last
            now = self._clock()
            if now - last > NOTED_SECONDS:
                record.gaps.append((last, now - last))
            last = now
            if ask.streams:
                self._story.heard(now, characters)

        while (heard := await self._asked(ask, came)).again is not None:
            self._story.refused += 1  # more is asked than can be served, as a client of OpenAI's bears as well
            self._story.records.remove(record)
            with suppress(TimeoutError):
                async with asyncio.timeout(heard.again):
                    await self._stopping.wait()
                return
            record.began = last = self._clock()
            self._story.records.append(record)
        came(0)
        record.ended = self._clock()
        expected = self._expected[ask.name]
        record.verdict = judge(expected, heard)
        record.why = heard.error or (f"{heard.answer} for {expected}" if record.verdict != "ok" else "")

    async def _asked(self, ask: Ask, came: Callable[[int], None]) -> Heard:
        try:
            self.open += ask.streams
            return await hear(self._http, ask, came)
        finally:
            self.open -= ask.streams


async def hear(http: httpx.AsyncClient, ask: Ask, came: Callable[[int], None]) -> Heard:
    """Ask and listen to the end; `came` is told of every event's characters. What goes wrong is told, not raised."""
    heard, gathering = Heard(), Gathering()
    try:
        if ask.streams:
            await _listen(http, ask, heard, gathering, came)
        else:
            await _read(http, ask, heard, gathering)
    except httpx.TransportError as wrong:
        heard.error = f"{type(wrong).__name__}: {wrong}"
    heard.answer = gathering.answer()
    return heard


def _begun(heard: Heard, response: httpx.Response) -> None:
    heard.status = response.status_code
    if heard.status == Overloaded.status:
        heard.again = float(response.headers.get("retry-after", 1))


async def _read(http: httpx.AsyncClient, ask: Ask, heard: Heard, gathering: Gathering) -> None:
    response = await http.post(ask.path, json=dict(ask.body))
    _begun(heard, response)
    if response.is_error:
        heard.error = response.text[:300]
        return
    gathering.take(response.json())
    heard.whole = True


async def _listen(
    http: httpx.AsyncClient,
    ask: Ask,
    heard: Heard,
    gathering: Gathering,
    came: Callable[[int], None],
) -> None:
    async with http.stream("POST", ask.path, json=dict(ask.body)) as response:
        _begun(heard, response)
        if response.is_error:
            heard.error = (await response.aread()).decode(errors="replace")[:300]
            return
        events = 0
        async for line in response.aiter_lines():
            if events == ask.leaves:
                heard.left = True
                return
            if line == "data: [DONE]":
                heard.whole = True
            elif line.startswith("data: "):
                piece = json.loads(line[6:])
                if "error" in piece:
                    heard.error = str(piece["error"])
                    return
                came(gathering.take(piece))
                events += 1
