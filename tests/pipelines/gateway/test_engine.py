"""The gateway before the real client: link, engine thread and scheduler, with a model that only remembers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from actors.directory import Directory
from actors.engine.tokens import Tokenizer
from actors.replicas import Replicas
from actors.roster import Roster
from cluster.security.keys import KeyRing
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Served
from pipelines.gateway.app import create
from pipelines.gateway.settings import GatewaySettings
from tests.actors.engine.remembering import continuation
from tests.actors.test_link import MODEL, Leader, lead, until_ready
from tests.contracts.client import still
from tests.pipelines.gateway.conftest import listening

PROMPT = list(range(40, 140))
ENDLESS = {"max_tokens": 20_000, "extra_body": {"ignore_eos": True}}


@dataclass
class House:
    """One replica, its client, and the gateway's door."""

    leader: Leader | None
    directory: Directory
    client: Replicas
    metrics: Metrics
    ai: openai.AsyncOpenAI

    def gauge(self, name: str) -> float:
        lines = self.metrics.text().decode().splitlines()
        return float(next(line for line in lines if line.startswith(name + "{")).rsplit(" ", 1)[1])


@asynccontextmanager
async def build(tokenizer: Tokenizer, folder: Path, replays: int = 16, **limits: int) -> AsyncIterator[House]:
    directory, metrics, ring = Directory(), Metrics(), KeyRing(folder / "keys.json")
    leader, client = await lead(directory, "one", **limits), Replicas(MODEL, replays)
    roster = Roster({MODEL: client}, directory.watch)
    roster.start()
    await until_ready(client)
    key = ring.issue("tests", "acme", "admin", created=1)
    # these engines count steps as seconds
    app = create({MODEL: Served(MODEL, client, tokenizer)}, ring, GatewaySettings(request_seconds=1e8), metrics)
    async with listening(app) as port:
        ai = openai.AsyncOpenAI(api_key=key, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
        house = House(leader, directory, client, metrics, ai)
        yield house
        await ai.close()
    await roster.close()
    if house.leader:
        house.leader.close()


@pytest.fixture
async def house(tokenizer: Tokenizer, tmp_path: Path) -> AsyncIterator[House]:
    async with build(tokenizer, tmp_path) as house:
        yield house


async def test_tokens_and_cached_prefixes(house: House, tokenizer: Tokenizer):
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    first = await house.ai.completions.create(**asked, extra_body={"ignore_eos": True}, logprobs=0)
    again = await house.ai.completions.create(**asked, extra_body={"ignore_eos": True}, logprobs=0)
    made = [tokenizer.text_of(token) for token in continuation(tuple(PROMPT), 12)]
    assert first.choices[0].logprobs.tokens == again.choices[0].logprobs.tokens == made
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert again.usage.prompt_tokens_details.cached_tokens >= 64


@pytest.mark.parametrize("n", [1, 4])
async def test_an_abort_frees_everything(house: House, n: int):
    stream = await house.ai.completions.create(model=MODEL, prompt=PROMPT, n=n, stream=True, **ENDLESS)
    await anext(aiter(stream))
    assert house.gauge("vllm:num_requests_running") + house.gauge("vllm:num_requests_waiting") > 0
    await stream.close()
    await still(house.client)
    assert house.gauge("vllm:num_requests_running") == house.gauge("vllm:num_requests_waiting") == 0
    assert house.gauge("vllm:kv_cache_usage_perc") == 0


async def test_a_full_queue(tokenizer: Tokenizer, tmp_path: Path):
    async with build(tokenizer, tmp_path, running_sequences=1, queued_sequences=0) as house:
        stream = await house.ai.completions.create(model=MODEL, prompt=PROMPT, stream=True, **ENDLESS)
        await anext(aiter(stream))
        with pytest.raises(openai.RateLimitError) as told:
            await house.ai.completions.create(model=MODEL, prompt=PROMPT)
        assert int(told.value.response.headers["retry-after"]) >= 1
        await stream.close()


async def test_a_leader_that_goes_is_a_pause_within_the_stream(house: House, tokenizer: Tokenizer):
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 600, "temperature": 0, "extra_body": {"ignore_eos": True}}
    stream = await house.ai.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    text = (await anext(aiter(stream))).choices[0].text
    house.leader.close()
    house.leader = await lead(house.directory, "two")
    async with asyncio.timeout(20):
        async for event in stream:
            text += "".join(choice.text for choice in event.choices)
            usage = event.usage
    assert text == (await house.ai.completions.create(**asked)).choices[0].text
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(PROMPT), 600)
    assert usage.prompt_tokens_details.cached_tokens == 0, "the prompt was computed twice and counts once"
    assert house.gauge("vllm:num_requests_running") == 0


async def test_a_leader_that_goes_is_an_error_where_nothing_is_taken_up(tokenizer: Tokenizer, tmp_path: Path):
    async with build(tokenizer, tmp_path, replays=0) as house:
        stream = await house.ai.completions.create(model=MODEL, prompt=PROMPT, stream=True, **ENDLESS)
        await anext(aiter(stream))
        house.leader.close()
        house.leader = None
        async with asyncio.timeout(20):
            with pytest.raises(openai.APIError):
                async for _ in stream:
                    pass
            with pytest.raises(openai.InternalServerError) as told:
                await house.ai.completions.create(model=MODEL, prompt=PROMPT)
        assert told.value.status_code == 503


@pytest.mark.parametrize(
    ("field", "value"), [("prompt", [10**6]), ("logit_bias", {str(10**6): 1}), ("prompt", PROMPT * 5)]
)
async def test_what_only_the_replica_knows_to_be_wrong(tokenizer: Tokenizer, tmp_path: Path, field: str, value: object):
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4} | {field: value}
    async with build(tokenizer, tmp_path, blocks=100) as house:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as told:
                await house.ai.completions.create(**asked, stream=stream)
            assert told.value.param == field
