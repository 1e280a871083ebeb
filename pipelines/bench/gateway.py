"""Load on a gateway, from this process, over HTTP.

Answers one question: with N streams at a time, how soon comes the first token and how many tokens come a second.
"""

import asyncio
import json
import secrets
import time
from typing import Any

import httpx

from pipelines.bench.figures import Load, Sample
from pipelines.driver import unreachable
from pipelines.refusals import refusal


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
    """One request. Each prompt begins as none did before, so that no answer is had from the prefix cache."""
    prompt = f"{secrets.randbelow(10**9)}{index} " + "word " * max(1, load.prompt_tokens - 2)
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
