"""Load on a model folder, by the engine in this process, without Ray and HTTP.

`streams` sequences run at a time; as soon as one ends the next begins. Prompts are random tokens, so that no prefix is
found again, and nothing is guessed, as random prompts make answers that say the same again and again.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from actors.engine import LLM, SamplingParams
from actors.messages import Delta, Submit
from actors.models.config import context_of, read_config
from cluster.errors import InvalidRequest, revived
from pipelines.bench.figures import Load, Row, Sample, summarize


@dataclass(slots=True)
class _Running:
    begun: float
    first: float = 0.0
    tokens: int = 0

    def take(self, delta: Delta, now: float) -> Sample | None:
        """The sample when the sequence is over."""
        if delta.error is not None:
            return Sample(0.0, 0.0, 0, str(revived(*delta.error)))
        self.first = self.first or now - self.begun
        self.tokens += len(delta.tokens)
        return Sample(self.first, now - self.begun, self.tokens) if delta.finish is not None else None


class Folder:
    """A folder, loaded. Raises ModelInvalid for one that cannot be served, InvalidRequest for too long a request."""

    def __init__(self, path: Path, quantization: str | None, load: Load) -> None:
        _fits(path, load, context_of(read_config(path).get_text_config(decoder=True)))
        begun = time.perf_counter()
        self._llm = LLM(path, quantization=quantization, max_num_seqs=max(load.streams), speculation="off")
        self.load_seconds = time.perf_counter() - begun
        try:
            _fits(path, load, self._llm.engine.capacity)
        except InvalidRequest:
            self._llm.close()
            raise

    @property
    def vocabulary(self) -> int:
        """Tokens that a prompt may hold."""
        return self._llm.tokenizer.vocab_size

    def row(self, load: Load, streams: int, advance: Callable[[int], None]) -> Row:
        """Serve all requests; `advance` hears how many are done."""
        self._serve(load, min(streams, 2), min(streams, 2), lambda _: None)  # first calls compile and page in
        begun = time.perf_counter()
        samples = self._serve(load, load.requests, streams, advance)
        return summarize(streams, samples, time.perf_counter() - begun)

    def _serve(self, load: Load, requests: int, streams: int, advance: Callable[[int], None]) -> list[Sample]:
        engine, running, samples, sent = self._llm.engine, dict[int, _Running](), list[Sample](), 0
        params = SamplingParams(temperature=0.0, max_tokens=load.max_tokens, ignore_eos=True)
        while len(samples) < requests:
            while sent < requests and len(running) < streams:
                submit = Submit(0, tuple(self._prompt(load.prompt_tokens)), params, seed=sent)
                begun = time.perf_counter()
                running[engine.add(submit)] = _Running(begun)
                sent += 1
            for key, delta in engine.step():
                done = running[key].take(delta, time.perf_counter())
                if done is not None:
                    samples.append(done)
                    del running[key]
                    advance(len(samples))
        return samples

    def _prompt(self, tokens: int) -> list[int]:
        return [random.randrange(self.vocabulary) for _ in range(tokens)]

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._llm.close()


def _fits(path: Path, load: Load, room: int) -> None:
    if load.prompt_tokens + load.max_tokens > room:
        wanted = f"{load.prompt_tokens} + {load.max_tokens}"
        raise InvalidRequest("prompt-tokens + max-tokens", wanted, f"{path} has room for {room} together")
