"""The spine: one turn, from prompt tokens to parts of text.

Knows a served model's client and tokenizer. Knows nothing of HTTP, of JSON or of who asks.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Protocol

from actors.client import Client, Stream
from actors.engine.tokens import Detokenizer, Tokenizer
from actors.messages import Delta, SamplingParams, TokenLogprob
from cluster.errors import ContextTooLong, Unavailable
from pipelines.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Served:
    """A model as the gateway sees it: its name, who answers for it and how its text becomes tokens."""

    name: str
    client: Client
    tokenizer: Tokenizer
    created: int = 0  # seconds since 1970, as /v1/models tells it
    verdicts: Verdicts = field(init=False, repr=False, compare=False)  # on the forms that answers are asked to have

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdicts", Verdicts(self.name, self.tokenizer))


@dataclass(frozen=True, slots=True)
class Turn:
    """What is asked: each prompt gets `params.n` choices, all from one seed.

    `field` is the request field that the prompts came from, for errors. `continues`: the answer goes on from the
    prompt's text. `salt` separates the prefix caches of tenants.
    """

    prompts: tuple[tuple[int, ...], ...]
    params: SamplingParams
    seed: int
    field: str = "messages"
    continues: bool = False
    salt: str = ""
    priority: int = 0
    deadline_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one engine step added to one choice. The last part of a choice has `finish`: "stop" or "length"."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str | None = None

    def __add__(self, after: "Part") -> "Part":
        """The two as one: what came next of the same choice."""
        return Part(self.choice, self.text + after.text, self.logprobs + after.logprobs, after.finish)


@dataclass(slots=True)
class Usage:
    """Tokens of a turn so far. A prompt counts once, however many choices it has."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class Meter(Protocol):
    """Who measures a turn: told of every delta and of every end, once each."""

    def heard(self, choice: int, delta: Delta) -> None: ...

    def ended(self, choice: int, finish: str, tokens: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Cut:
    """A place in a choice: after so many tokens, and whether also after its end."""

    tokens: int
    ended: bool


HEAD = 160  # characters of an answer that tell what kind it is
Heard = tuple["Voice", Delta]
Arrived = asyncio.Queue[tuple["Voice", Delta | asyncio.Task[None]]]


def fit(turn: Turn, context_tokens: int) -> SamplingParams:
    """The turn's parameters with `max_tokens` set to what fits. Raises ContextTooLong naming the field at fault."""
    longest = max(len(prompt) for prompt in turn.prompts)
    room = context_tokens - longest
    if room < 1:
        raise ContextTooLong(
            turn.field,
            f"a prompt of {longest} tokens",
            f"this model holds {context_tokens} tokens, prompt and answer together",
        )
    wanted = turn.params.max_tokens
    if wanted is not None and wanted > room:
        raise ContextTooLong(
            "max_tokens", wanted, f"the prompt has {longest} of {context_tokens} tokens: ask for at most {room}"
        )
    if turn.params.min_tokens > (wanted or room):
        raise ContextTooLong("min_tokens", turn.params.min_tokens, f"ask for at most {wanted or room}")
    return turn.params if wanted is not None else replace(turn.params, max_tokens=room)


@dataclass(slots=True)
class Voice:
    """One choice under way: its stream and what of it has become text."""

    choice: int
    stream: Stream
    words: Detokenizer
    model: str
    first: bool  # of its prompt: the one whose cached tokens count
    tokens: int = 0
    finish: str | None = None
    head: str = ""  # how the text begins, so many characters of it:
    kept: int = HEAD

    def hear(self, delta: Delta) -> Part | None:
        """The text that `delta` completes; None where it completes none. Cancels the stream at a stop string."""
        piece = self.words.push(delta.tokens, ended=delta.finish == "stop")
        self.tokens += piece.kept_tokens
        text, kept = piece.text, delta.logprobs
        if piece.stopped:
            self.finish, kept = "stop", kept[: piece.kept_tokens]
            if delta.finish is None:
                self.stream.cancel()
        elif delta.finish in ("stop", "length"):
            self.finish = delta.finish
            text += self.words.flush().text
        elif delta.finish is not None:
            raise Unavailable(self.model, f"the sequence ended early ({delta.finish})")
        if len(self.head) < self.kept:
            self.head = (self.head + text)[: self.kept]
        if not (text or kept or self.finish):
            return None
        return Part(self.choice, text, kept, self.finish)


@dataclass(slots=True)
class Answer:
    """A turn under way. Iterate it for the parts that became ready together; closing it cancels what runs.

    With `keeps`, a reader that goes leaves it paused: it holds nothing, and is iterated again from where it was.
    With `cuts`, by choice, no part reaches over a cut, and `lacking` says of each whether its reader lacks it; both are
    forgotten once every choice is beyond its own.
    """

    voices: list[Voice]
    usage: Usage
    meter: Meter | None = None
    keeps: bool = False
    cuts: Mapping[int, Cut] = field(default_factory=dict)
    lacking: Callable[[Part], bool] | None = None
    _arrived: Arrived = field(default_factory=asyncio.Queue)
    _unread: deque[Heard] = field(default_factory=deque)  # of a batch, should a reader go in the midst of it

    async def parts(self) -> AsyncGenerator[list[Part]]:
        """Raises the StrataError that ended a stream. Every list holds at least one part."""
        if self.over:
            return
        alone, left = len(self.voices) == 1, False
        batches = single(self.voices[0]) if alone else merge(self.voices, self._arrived)
        try:
            for parts in self._read():
                yield parts
            if any(voice.finish is None for voice in self.voices):
                async for batch in batches:
                    self._unread += batch
                    for parts in self._read():
                        yield parts
        except (asyncio.CancelledError, GeneratorExit):
            left = self.keeps
            raise
        finally:
            if not (left and self._pause()):
                self.cancel()
            await batches.aclose()

    def keep(self, characters: int) -> None:
        """Keep so much of how each choice begins."""
        for voice in self.voices:
            voice.kept = characters

    @property
    def over(self) -> bool:
        """Whether every choice has come to its end."""
        return all(voice.finish is not None for voice in self.voices)

    def _take(self, batch: list[Heard]) -> list[Part]:
        """One part for each choice that got further, however many deltas it got there by."""
        parts: dict[int, Part] = {}
        for voice, delta in batch:
            if voice.finish:
                continue
            if self.meter:
                self.meter.heard(voice.choice, delta)
            if voice.first:
                self.usage.cached += delta.cached_tokens
            before_tokens = voice.tokens
            part = voice.hear(delta)
            self.usage.completion += voice.tokens - before_tokens
            if part is None:
                continue
            before = parts.get(part.choice)
            parts[part.choice] = before + part if before else part
            if part.finish and self.meter:
                self.meter.ended(voice.choice, part.finish, voice.tokens)
        return list(parts.values())

    def _read(self) -> Iterator[list[Part]]:
        """What came together, or before a cut each of it alone; what is not given out yet is still there."""
        while self._unread:
            if self.cuts and all(self._beyond(voice) for voice in self.voices):
                self.cuts, self.lacking = {}, None
            if not self.cuts:
                batch = list(self._unread)
                self._unread.clear()
            else:
                voice, delta = self._unread.popleft()
                cut = self.cuts[voice.choice]
                piece, *rest = split(delta, cut.tokens - voice.tokens, cut.ended)
                self._unread.extendleft((voice, one) for one in reversed(rest))
                batch = [(voice, piece)]
            parts = self._take(batch)
            if self.lacking is not None:
                parts = [part for part in parts if self.lacking(part)]
            if parts:
                yield parts

    def _beyond(self, voice: Voice) -> bool:
        return voice.finish is not None or voice.tokens > self.cuts[voice.choice].tokens

    def _pause(self) -> bool:
        """Whether all that runs can be gone on with; it is freed in any case."""
        paused = [voice.stream.pause() for voice in self.voices if voice.finish is None]
        return all(paused)

    def cancel(self) -> None:
        """Free whatever still runs. Harmless when called twice."""
        for voice in self.voices:
            if voice.finish is None:
                voice.finish = "cancelled"
                voice.stream.cancel()
                if self.meter:
                    self.meter.ended(voice.choice, "abort", voice.tokens)


def split(delta: Delta, tokens: int, ended: bool) -> Iterator[Delta]:
    """The first `tokens` of a delta and the rest, where both are something; its end is with the rest unless `ended`."""
    there = len(delta.tokens)
    if 0 < tokens < there or (tokens == there and delta.finish == "length" and not ended):
        yield replace(delta, tokens=delta.tokens[:tokens], logprobs=delta.logprobs[:tokens], finish=None)
        yield replace(delta, tokens=delta.tokens[tokens:], logprobs=delta.logprobs[tokens:], cached_tokens=0)
    else:
        yield delta


async def single(voice: Voice) -> AsyncGenerator[list[Heard]]:
    """The common case, without a task and a queue between the stream and its reader."""
    async for delta in voice.stream:
        yield [(voice, delta), *((voice, more) for more in voice.stream.drain())]
        if voice.finish:
            return
    raise Unavailable(voice.model, "the stream ended without a reason")


async def merge(voices: list[Voice], arrived: Arrived) -> AsyncGenerator[list[Heard]]:
    """All that the voices have brought since the last look, until each has finished.

    `arrived` is what they bring it in; what an earlier reader left there is told first.
    """
    left = [(voice, what) for voice, what in emptied(arrived) if isinstance(what, Delta)]
    done_already = {id(voice) for voice, delta in left if delta.finish}

    async def listen(voice: Voice) -> None:
        async for delta in voice.stream:
            arrived.put_nowait((voice, delta))
            if delta.finish:
                return

    def follow(voice: Voice) -> asyncio.Task[None]:
        task = asyncio.create_task(listen(voice))
        task.add_done_callback(lambda done: arrived.put_nowait((voice, done)))
        return task

    tasks = [follow(voice) for voice in voices if voice.finish is None and id(voice) not in done_already]
    try:
        if left:
            yield left
        while any(voice.finish is None for voice in voices):
            came = [await arrived.get(), *emptied(arrived)]
            yield [(voice, what) for voice, what in came if isinstance(what, Delta)]
            for voice, what in came:
                if not isinstance(what, Delta) and what in tasks and voice.finish is None:
                    what.result()  # raises what ended the stream
                    raise Unavailable(voice.model, "the stream ended without a reason")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def emptied(arrived: Arrived) -> list[tuple[Voice, Delta | asyncio.Task[None]]]:
    """All that is in there now."""
    return [arrived.get_nowait() for _ in range(arrived.qsize())]


async def answer(served: Served, turn: Turn, meter: Meter | None = None) -> Answer:
    """Submit every choice of `turn`. Raises ContextTooLong, InvalidRequest, Overloaded or Unavailable."""
    params = fit(turn, served.client.context_tokens)
    tokens = sum(map(len, turn.prompts))
    served.client.admit(tokens, priority=turn.priority, deadline=turn.deadline_seconds)
    voices: list[Voice] = []

    async def submit(place: int, prompt: tuple[int, ...], choice: int) -> None:
        stream = await served.client.submit(
            prompt,
            params,
            seed=turn.seed,
            choice=choice,
            salt=turn.salt,
            priority=turn.priority,
            deadline=turn.deadline_seconds,
        )
        words = Detokenizer(served.tokenizer, params, continues=turn.continues)
        voices.append(Voice(place, stream, words, served.name, first=choice == 0))

    asked = [(prompt, choice) for prompt in turn.prompts for choice in range(params.n)]
    try:
        if len(asked) == 1:
            await submit(0, *asked[0])
        else:  # side by side: each is a way to the replica and back
            await together([submit(place, *one) for place, one in enumerate(asked)])
    except BaseException:
        for voice in voices:
            voice.stream.cancel()
        raise
    voices.sort(key=attrgetter("choice"))
    return Answer(voices, Usage(prompt=tokens), meter)


async def together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of it at once. Raises what the first to fail raised, after the rest was cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
