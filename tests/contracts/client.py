"""What every `actors.client.Client` does: run by the fake of the gateway's tests and by the real ones.

A test class inherits `ClientContract` and gives a `client` fixture of a model with at least 200 tokens of context,
whose vocabulary holds the ids 0 to 200 and that makes any token when greedy.
"""

import asyncio
from collections.abc import Mapping

import pytest

from actors.client import Client, Stream
from actors.messages import Delta, SamplingParams
from cluster.errors import ContextTooLong

PROMPT = tuple(range(40, 72))
ENDLESS = 100  # tokens that no test waits for


def greedy(**more) -> SamplingParams:
    return SamplingParams(**{"temperature": 0.0, "max_tokens": 8, "ignore_eos": True, **more})


async def collect(stream: Stream) -> list[Delta]:
    async with asyncio.timeout(60):
        return [delta async for delta in stream]


def tokens(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.tokens]


async def still(client: Client) -> None:
    """Return when no replica says that it runs or holds anything back."""
    for _ in range(1000):
        if not any(load.running or load.waiting for load in client.loads.values()):
            return
        await asyncio.sleep(0.01)  # a load comes with a frame, which no event of ours announces
    raise AssertionError(client.loads)


class ClientContract:
    async def test_ready_with_a_load_for_each_replica(self, client: Client):
        assert client.ready
        assert client.loads
        assert client.context_tokens >= 200

    async def test_it_takes_all_that_the_gateway_says(self, client: Client):
        client.admit(len(PROMPT), priority=1, deadline=60.0)
        assert isinstance(client.registry, Mapping)
        stream = await client.submit(PROMPT, greedy(), seed=1, choice=1, salt="s", priority=1, deadline=60.0)
        assert len(tokens(await collect(stream))) == 8

    async def test_the_last_delta_and_only_that_has_a_finish(self, client: Client):
        deltas = await collect(await client.submit(PROMPT, greedy(), seed=1))
        assert len(tokens(deltas)) == 8
        assert deltas[-1].finish == "length"
        assert all(delta.finish is None for delta in deltas[:-1])

    async def test_the_same_request_gives_the_same_tokens(self, client: Client):
        params = greedy(temperature=1.0)
        one, two = [tokens(await collect(await client.submit(PROMPT, params, seed=7))) for _ in range(2)]
        assert one == two

    async def test_choices_of_one_seed_differ(self, client: Client):
        params = greedy(temperature=1.0, max_tokens=32)
        streams = [await client.submit(PROMPT, params, seed=7, choice=choice) for choice in range(3)]
        made = {tuple(tokens(deltas)) for deltas in await asyncio.gather(*map(collect, streams))}
        assert len(made) == 3

    async def test_many_at_once_all_end(self, client: Client):
        streams = [await client.submit((*PROMPT, token), greedy(), seed=token) for token in range(12)]
        for deltas in await asyncio.gather(*map(collect, streams)):
            assert len(tokens(deltas)) == 8
        await still(client)

    async def test_logprobs_come_with_their_tokens(self, client: Client):
        deltas = await collect(await client.submit(PROMPT, greedy(logprobs=2), seed=1))
        for delta in deltas:
            assert [entry.token for entry in delta.logprobs] == list(delta.tokens)
            assert all(len(entry.top) == 2 and entry.logprob <= 0 for entry in delta.logprobs)

    async def test_a_cancelled_stream_ends_and_holds_nothing(self, client: Client):
        stream = await client.submit(PROMPT, greedy(max_tokens=ENDLESS), seed=1)
        first = await anext(aiter(stream))
        assert first.finish is None
        stream.cancel()
        stream.cancel()
        rest = await collect(stream)
        assert all(delta.finish in (None, "cancelled") for delta in rest)
        await still(client)

    async def test_cancelling_after_the_end_is_harmless(self, client: Client):
        stream = await client.submit(PROMPT, greedy(), seed=1)
        await collect(stream)
        stream.cancel()
        assert len(tokens(await collect(await client.submit(PROMPT, greedy(), seed=1)))) == 8

    async def test_a_stop_id_ends_a_stream(self, client: Client):
        made = tokens(await collect(await client.submit(PROMPT, greedy(), seed=1)))
        deltas = await collect(await client.submit(PROMPT, greedy(stop_token_ids=(made[0],)), seed=1))
        assert deltas[-1].finish == "stop"
        assert tokens(deltas) == made[:1]

    async def test_what_can_never_fit_is_refused(self, client: Client):
        prompt = tuple(token % 200 for token in range(client.context_tokens + 1))
        with pytest.raises(ContextTooLong):
            await collect(await client.submit(prompt, greedy(), seed=1))
