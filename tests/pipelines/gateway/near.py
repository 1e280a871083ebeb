"""A real engine in this process behind the client's face: what the gateway asks for is what a model draws."""

import asyncio
from collections.abc import Hashable, Mapping

from actors.engine.llm import LLM
from actors.engine.thread import EngineThread
from actors.messages import Cancel, Delta, Load, SamplingParams, Submit
from cluster import errors


class NearStream:
    """One sequence's deltas."""

    lost = 0

    def __init__(self, client: "NearClient", number: int) -> None:
        self._client, self._number = client, number
        self.arrived: asyncio.Queue[Delta] = asyncio.Queue()
        self._over = False

    def __aiter__(self) -> "NearStream":
        return self

    async def __anext__(self) -> Delta:
        if self._over:
            raise StopAsyncIteration
        return self._seen(await self.arrived.get())

    def drain(self) -> list[Delta]:
        return [self._seen(self.arrived.get_nowait()) for _ in range(self.arrived.qsize())]

    def cancel(self) -> None:
        self._client.thread.post("near", Cancel(self._number))

    def pause(self) -> bool:
        self.cancel()
        return False

    def _seen(self, delta: Delta) -> Delta:
        if delta.error is not None:
            kind, arguments = delta.error
            raise getattr(errors, kind)(*arguments)
        self._over = delta.finish is not None
        return delta


class NearClient:
    """One replica. `submitted` are the parameters that came so far."""

    ready = True

    def __init__(self, llm: LLM) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, NearStream] = {}
        self.context_tokens = llm.engine.capacity
        self.loads: dict[str, Load] = {}
        self.submitted: list[SamplingParams] = []
        self.thread = EngineThread(llm.engine, self._publish, lambda error: None)
        self.thread.start()

    async def submit(
        self,
        prompt: tuple[int, ...],
        params: SamplingParams,
        *,
        seed: int,
        choice: int = 0,
        salt: str = "",
        priority: int = 0,
        deadline: float | None = None,
    ) -> NearStream:
        number = len(self._streams)
        stream = self._streams[number] = NearStream(self, number)
        self.submitted.append(params)
        self.thread.post("near", Submit(number, prompt, params, seed, choice, salt, priority, deadline))
        return stream

    def admit(self, tokens: int, **more: object) -> None:
        """All may wait."""

    def _publish(self, grown: Mapping[Hashable, list[Delta]], load: Load) -> None:
        for delta in grown.get("near", ()):
            self._loop.call_soon_threadsafe(self._streams[delta.id].arrived.put_nowait, delta)
