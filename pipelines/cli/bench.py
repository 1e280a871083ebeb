"""`strata bench`: plain load on the gateway, from this process, over HTTP.

Answers one question: with N streams at a time, how soon comes the first token and how many tokens come a second.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from cluster.errors import Unavailable
from pipelines.cli import show
from pipelines.cli.config import settle
from pipelines.cli.keys import mine
from pipelines.driver import connect, refusal, unreachable


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: for each number of streams, `requests` requests."""

    streams: tuple[int, ...]
    requests: int
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: seconds to the first token and to the end, tokens that came, why it failed if it did."""

    first: float
    total: float
    tokens: int
    failed: str = ""


def run(load: Load, model: str | None, file: Path | None, *, url: str | None, as_json: bool) -> None:
    """Measure and print one row for each number of streams."""
    cluster = settle(file).settings.cluster
    base, key = url or cluster.url, mine(cluster)
    with connect(base, key) as strata:
        name = model or strata.models()[0]
    rows = []
    for streams in load.streams:
        show.progress(f"{load.requests} requests, {streams} at a time")
        started = time.perf_counter()
        samples = asyncio.run(drive(base, key, name, load, streams))
        rows.append(summarize(streams, samples, time.perf_counter() - started))
        if all(sample.failed for sample in samples):
            raise Unavailable("every request", samples[0].failed)
    if as_json:
        show.document({"model": name, "load": asdict(load), "results": rows})
        return
    show.table(tuple(rows[0]), [tuple(f"{cell:.4g}" for cell in row.values()) for row in rows])


async def drive(base: str, key: str, model: str, load: Load, streams: int) -> list[Sample]:
    """All requests, at most `streams` at a time."""
    gate = asyncio.Semaphore(streams)
    limits = httpx.Limits(max_connections=streams, max_keepalive_connections=streams)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=600, trust_env=False) as http:

        async def one(index: int) -> Sample:
            async with gate:
                return await ask(http, body(model, load, index))

        return await asyncio.gather(*(one(index) for index in range(load.requests)))


def body(model: str, load: Load, index: int) -> dict[str, Any]:
    """One request. Each prompt begins differently, so that no answer is had from the prefix cache."""
    prompt = f"{index} " + "word " * max(1, load.prompt_tokens - 2)
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": load.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def ask(http: httpx.AsyncClient, request: dict[str, Any]) -> Sample:
    """Send one request and read its stream to the end."""
    started = time.perf_counter()
    first, tokens = 0.0, 0
    try:
        async with http.stream("POST", "/v1/completions", json=request) as response:
            if response.is_error:
                await response.aread()
                return Sample(0.0, 0.0, 0, str(refusal(response)))
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                first = first or time.perf_counter() - started
                event = json.loads(line[6:])
                if "error" in event:
                    return Sample(0.0, 0.0, 0, str(event["error"]))
                if event.get("usage"):
                    tokens = event["usage"]["completion_tokens"]
    except httpx.ConnectError as wrong:
        raise unreachable(http.base_url, wrong) from None
    except httpx.TransportError as wrong:
        return Sample(0.0, 0.0, 0, type(wrong).__name__)
    return Sample(first, time.perf_counter() - started, tokens)


def summarize(streams: int, samples: Sequence[Sample], seconds: float) -> dict[str, float]:
    """One row: times in milliseconds, tokens a second over all streams."""
    good = [sample for sample in samples if not sample.failed]
    first = [1000 * sample.first for sample in good]
    between = [1000 * (s.total - s.first) / (s.tokens - 1) for s in good if s.tokens > 1]
    return {
        "streams": streams,
        "requests": len(samples),
        "failed": len(samples) - len(good),
        "first token p50 ms": percentile(first, 50),
        "first token p99 ms": percentile(first, 99),
        "between tokens p50 ms": percentile(between, 50),
        "tokens/s": sum(sample.tokens for sample in good) / seconds,
        "seconds": seconds,
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` % of the values do not exceed; 0 for none."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
