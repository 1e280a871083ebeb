"""A model that needs no engine: letters drawn from a hash, at the pace that a test sets."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from actors.messages import Delta, Load, SamplingParams, TokenLogprob
from cluster.errors import ContextTooLong, Overloaded, StrataError

LETTERS = range(64, 90)  # in the byte-level vocabulary of `folder.py` these are letters


def letters(prompt: Sequence[int], seed: int, choice: int, temperature: float) -> Callable[[int], int]:
    """Token by position. Greedy ones depend on the prompt alone."""
    chance = (seed, choice) if temperature else ()

    def token(position: int) -> int:
        drawn = hashlib.sha256(repr((tuple(prompt), chance, position)).encode()).digest()
        return LETTERS[drawn[0] % len(LETTERS)]

    return token


@dataclass
class FakeStream:
    """One sequence: `burst` tokens a delta; waits for `client.gate` once `client.free_deltas` are out."""

    client: "FakeClient"
    token: Callable[[int], int]
    params: SamplingParams
    prompt: tuple[int, ...]
    seed: int
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    made: int = 0
    deltas: int = 0
    over: bool = False
    told: bool = False

    @property
    def lost(self) -> int:
        return self.client.deaths

    def __aiter__(self) -> "FakeStream":
        return self

    async def __anext__(self) -> Delta:
        if self.over:
            return self._farewell()
        if self.deltas >= self.client.free_deltas:
            await self._pause()
        else:
            await asyncio.sleep(0)
        if self.cancelled.is_set():
            return self._farewell()
        if self.client.breaks_after is not None and self.deltas >= self.client.breaks_after:
            self.end()
            raise self.client.breaks_with
        return self._step()

    def _farewell(self) -> Delta:
        if self.told or not self.cancelled.is_set():
            raise StopAsyncIteration
        self.told = True
        return Delta(0, (), finish="cancelled")

    async def _pause(self) -> None:
        opened = asyncio.ensure_future(self.client.gate.wait())
        stopped = asyncio.ensure_future(self.cancelled.wait())
        try:
            await asyncio.wait((opened, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
            stopped.cancel()

    def _step(self) -> Delta:
        most = self.params.max_tokens or 16
        tokens: list[int] = []
        finish = None
        while finish is None and len(tokens) < self.client.burst:
            tokens.append(self._next())
            if tokens[-1] in self.params.stop_ids or (tokens[-1] == self.client.end and not self.params.ignore_eos):
                finish = "stop"
            elif self.made >= most:
                finish = "length"
        first = self.deltas == 0
        self.deltas += 1
        if finish:
            self.end()
        logprobs = tuple(map(self._told, tokens)) if self.params.logprobs is not None else ()
        cached = self.client.cached if first else 0
        return Delta(0, tuple(tokens), logprobs, finish, cached, 0.001 if first else 0.0, 0.002 if first else 0.0)

    def _next(self) -> int:
        script = self.client.script
        token = script[self.made] if script and self.made < len(script) else self.token(self.made)
        self.made += 1
        return token

    def _told(self, token: int) -> TokenLogprob:
        count = self.params.logprobs or 0
        return TokenLogprob(token, -0.5, tuple((token + place, -0.5 - place) for place in range(count)))

    def end(self) -> None:
        if not self.over:
            self.over = True
            self.client.running -= 1

    def drain(self) -> list[Delta]:
        """Nothing waits here: a delta is made when it is asked for."""
        return []

    def cancel(self) -> None:
        """A real engine frees within one step; this one frees at once and still tells its reader."""
        if not self.over:
            self.client.cancels += 1
            self.cancelled.set()
            self.end()

    def pause(self) -> bool:
        """With `client.resumable` it goes on when it is asked again, as one with a journal."""
        if not self.client.resumable:
            self.cancel()
        return self.client.resumable


@dataclass
class FakeClient:
    """A client whose every behaviour a test can set. `streams` are all that it ever gave out."""

    context_tokens: int = 256
    script: tuple[int, ...] = ()
    burst: int = 1
    cached: int = 0
    end: int = -1
    free_deltas: int = 10**9
    breaks_after: int | None = None
    breaks_with: StrataError = field(default_factory=StrataError)
    refuses: StrataError | None = None
    deaths: int = 0  # of replicas, under each answer
    ready: bool = True
    running: int = 0
    cancels: int = 0
    resumable: bool = False
    registry: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    streams: list[FakeStream] = field(default_factory=list)
    salts: list[str] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    full: StrataError | None = None
    admitted: list[int] = field(default_factory=list)

    def admit(self, tokens: int, *, priority: int = 0, deadline: float | None = None) -> None:
        self.admitted.append(tokens)
        if self.full is not None:
            raise self.full

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
    ) -> FakeStream:
        if self.refuses is not None:
            raise self.refuses
        if len(prompt) + (params.max_tokens or 1) > self.context_tokens:
            raise ContextTooLong("prompt", f"{len(prompt)} tokens", f"at most {self.context_tokens}")
        self.salts.append(salt)
        self.deadlines.append(deadline)
        self.priorities.append(priority)
        token = letters(prompt, seed, choice, params.temperature)
        stream = FakeStream(self, token, params, prompt, seed)
        self.streams.append(stream)
        self.running += 1
        return stream

    @property
    def loads(self) -> dict[str, Load]:
        return {"r0": Load(running=self.running, generated_tokens=sum(stream.made for stream in self.streams))}


def full(model: str = "starter") -> Overloaded:
    return Overloaded(model, 256, 3)


class FakeReleases:
    """Whoever decides of rollouts, and says yes to all."""

    async def start(self, asked, by: str):
        return {"asked": dict(asked), "by": by}

    async def command(self, name: str, verb: str, by: str):
        return {"name": name, "verb": verb, "by": by}

    async def rollouts(self):
        return []

    async def rollout(self, name: str):
        return {"name": name}

    async def routes(self):
        return []

    async def route(self, model: str):
        return {"model": model}

    async def reroute(self, model: str, asked, by: str):
        return {"model": model, "asked": dict(asked), "by": by}

    async def experiment(self, asked, by: str):
        return {"asked": dict(asked), "by": by}

    async def end(self, name: str, keep: str | None, by: str):
        return {"name": name, "keep": keep, "by": by}

    async def experiments(self):
        return [{"name": "starter"}]
