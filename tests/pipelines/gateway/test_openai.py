"""The unmodified OpenAI client against the gateway on a real port."""

import asyncio

import openai
import pytest

from cluster.errors import ReplicaLost
from tests.pipelines.gateway.conftest import Stage, listening
from tests.pipelines.gateway.fakes import full

HELLO = [{"role": "user", "content": "hello"}]


async def test_chat(ai: openai.AsyncOpenAI):
    made = await ai.chat.completions.create(model="starter", messages=HELLO, max_tokens=5, seed=1)
    assert made.object == "chat.completion"
    assert made.choices[0].finish_reason == "length"
    assert made.choices[0].message.role == "assistant"
    assert len(made.choices[0].message.content) == 5
    assert made.usage.completion_tokens == 5
    assert made.usage.total_tokens == made.usage.prompt_tokens + 5


async def test_a_stream_says_what_the_whole_says(ai: openai.AsyncOpenAI):
    asked = {"model": "starter", "messages": HELLO, "max_tokens": 7, "seed": 3}
    whole = await ai.chat.completions.create(**asked)
    events = [event async for event in await ai.chat.completions.create(**asked, stream=True)]
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(event.choices[0].delta.content for event in events) == whole.choices[0].message.content
    assert [event.choices[0].finish_reason for event in events] == [None] * 7 + ["length"]
    assert len({event.id for event in events}) == 1


async def test_usage_at_the_end_of_a_stream(stage: Stage, ai: openai.AsyncOpenAI):
    stage.client.cached = 4
    options = {"include_usage": True}
    asked = {"model": "starter", "messages": HELLO, "max_tokens": 3, "stream": True, "stream_options": options}
    events = [event async for event in await ai.chat.completions.create(**asked)]
    assert all(event.usage is None for event in events[:-1])
    assert events[-1].choices == []
    assert events[-1].usage.completion_tokens == 3
    assert events[-1].usage.prompt_tokens_details.cached_tokens == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_choices(stage: Stage, ai: openai.AsyncOpenAI, stream: bool):
    stage.client.cached = 4
    asked = {"model": "starter", "messages": HELLO, "max_tokens": 6, "n": 3, "seed": 5}
    whole = await ai.chat.completions.create(**asked)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert whole.usage.completion_tokens == 18
    assert whole.usage.prompt_tokens_details.cached_tokens == 4  # the prompt counts once
    if stream:
        heard = {0: "", 1: "", 2: ""}
        async for event in await ai.chat.completions.create(**asked, stream=True):
            for choice in event.choices:
                heard[choice.index] += choice.delta.content or ""
        assert list(heard.values()) == texts


async def test_a_stop_string_cuts_and_cancels(stage: Stage, ai: openai.AsyncOpenAI):
    stage.client.script = tuple(stage.tokenizer.encode("one two three"))
    made = await ai.chat.completions.create(model="starter", messages=HELLO, max_tokens=50, stop=[" thr", "zzz"])
    assert made.choices[0].message.content == "one two"
    assert made.choices[0].finish_reason == "stop"
    assert stage.client.cancels == 1
    assert stage.client.running == 0


async def test_chat_logprobs(ai: openai.AsyncOpenAI):
    made = await ai.chat.completions.create(
        model="starter", messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2
    )
    entries = made.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == made.choices[0].message.content
    assert all(len(entry.top_logprobs) == 2 and entry.logprob == -0.5 for entry in entries)
    assert bytes(entries[0].bytes).decode() == entries[0].token


async def test_completions(ai: openai.AsyncOpenAI):
    made = await ai.completions.create(model="starter", prompt=["ab", "cd"], n=2, max_tokens=4, logprobs=1, seed=1)
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert made.usage.prompt_tokens == 4
    told = made.choices[0].logprobs
    assert "".join(told.tokens) == made.choices[0].text
    assert told.text_offset == [0, 1, 2, 3]
    assert len(told.token_logprobs) == len(told.top_logprobs) == 4


async def test_completions_echo_and_tokens(stage: Stage, ai: openai.AsyncOpenAI):
    asked = {"model": "starter", "max_tokens": 3, "seed": 1, "echo": True}
    made = await ai.completions.create(prompt="xyz", **asked)
    again = await ai.completions.create(prompt=stage.tokenizer.encode("xyz"), **asked)
    assert made.choices[0].text == again.choices[0].text
    assert made.choices[0].text.startswith("xyz")
    events = [event async for event in await ai.completions.create(prompt="xyz", **asked, stream=True)]
    assert "".join(event.choices[0].text for event in events) == made.choices[0].text


async def test_models(ai: openai.AsyncOpenAI):
    assert [model.id async for model in ai.models.list()] == ["starter"]
    assert (await ai.models.retrieve("starter")).created == 5
    with pytest.raises(openai.NotFoundError) as told:
        await ai.models.retrieve("org/other")
    assert told.value.code == "model_not_found"


async def test_typed_errors(stage: Stage, ai: openai.AsyncOpenAI):
    asked = {"model": "starter", "messages": HELLO}
    with pytest.raises(openai.AuthenticationError):
        await ai.with_options(api_key="sk-strata-nobody").chat.completions.create(**asked)
    with pytest.raises(openai.NotFoundError):
        await ai.chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as told:
        await ai.chat.completions.create(**asked, temperature=-1)
    assert told.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as told:
        await ai.chat.completions.create(**asked, max_tokens=10**6)
    assert told.value.code == "context_length_exceeded"
    stage.client.refuses = full()
    with pytest.raises(openai.RateLimitError) as told:
        await ai.chat.completions.create(**asked)
    assert told.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_replica_lost_before_the_first_token(stage: Stage, ai: openai.AsyncOpenAI, stream: bool):
    stage.client.breaks_after, stage.client.breaks_with = 0, ReplicaLost("starter", "a rank died")
    with pytest.raises(openai.InternalServerError) as told:
        await ai.chat.completions.create(model="starter", messages=HELLO, stream=stream)
    assert told.value.status_code == 503
    assert told.value.code == "replica_lost"


@pytest.mark.parametrize("n", [1, 2])
async def test_a_replica_lost_in_mid_stream(stage: Stage, ai: openai.AsyncOpenAI, n: int):
    stage.client.breaks_after, stage.client.breaks_with = 2, ReplicaLost("starter", "a rank died")
    heard = []
    with pytest.raises(openai.APIError, match="a rank died"):
        async for event in await ai.chat.completions.create(model="starter", messages=HELLO, stream=True, n=n):
            heard.append(event)
    assert len(heard) == 3 * n  # the role and two tokens
    assert stage.client.running == 0


async def test_time_out_frees_the_sequence(stage: Stage, ai: openai.AsyncOpenAI):
    stage.client.free_deltas = 0
    with pytest.raises(openai.APITimeoutError):
        await ai.chat.completions.create(model="starter", messages=HELLO, timeout=0.2)
    async with asyncio.timeout(10):
        await stage.client.streams[0].cancelled.wait()


@pytest.mark.parametrize("n", [1, 3])
async def test_closing_a_stream_reaches_every_sequence(stage: Stage, ai: openai.AsyncOpenAI, n: int):
    stage.client.free_deltas = 2
    stream = await ai.chat.completions.create(model="starter", messages=HELLO, stream=True, n=n)
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(10):
        await asyncio.gather(*(sequence.cancelled.wait() for sequence in stage.client.streams))
    assert len(stage.client.streams) == n
    assert stage.client.running == 0


async def test_the_stream_helper_of_the_client(stage: Stage, ai: openai.AsyncOpenAI):
    stage.client.script, stage.client.end = (*stage.tokenizer.encode("hello"), 256), 256
    asked = {"model": "starter", "messages": HELLO, "n": 2, "logprobs": True}
    async with ai.chat.completions.stream(**asked) as stream:
        kinds = {event.type async for event in stream}
        made = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= kinds
    whole = await ai.chat.completions.create(**asked)
    assert [one.message.content for one in made.choices] == [one.message.content for one in whole.choices]
    assert len(made.choices[1].logprobs.content) == 6  # the end token has one, too


async def test_a_retry_after_a_full_queue(stage: Stage, ai: openai.AsyncOpenAI):
    """The client retries on its own, as Retry-After says, and gets its answer."""
    refusal = full()
    refusal.retry_after_seconds = 0
    stage.client.refuses = refusal
    submit = stage.client.submit

    async def once(*args, **more):
        try:
            return await submit(*args, **more)
        finally:
            stage.client.refuses = None

    stage.client.submit = once
    made = await ai.with_options(max_retries=1).chat.completions.create(model="starter", messages=HELLO, max_tokens=2)
    assert made.usage.completion_tokens == 2


def test_the_blocking_client_in_a_thread(stage: Stage):
    async def serve() -> str:
        async with listening(stage.app) as port:
            return await asyncio.to_thread(ask, f"http://localhost:{port}/v1")

    def ask(address: str) -> str:
        with openai.OpenAI(api_key=stage.key, base_url=address, max_retries=0) as client:
            asked = {"model": "starter", "messages": HELLO, "max_tokens": 3}
            events = list(client.chat.completions.create(**asked, stream=True))
            return "".join(event.choices[0].delta.content for event in events)

    assert len(asyncio.run(serve())) == 3
