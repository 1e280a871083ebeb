"""The starter model behind the gateway, asked by the unmodified OpenAI client for tools and for forms."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from actors.engine.llm import LLM
from cluster.security.keys import KeyRing
from pipelines.chat import Served
from pipelines.gateway.app import create
from pipelines.lifecycle.data.tools import TOOLS
from tests.pipelines.gateway.conftest import listening
from tests.pipelines.gateway.near import NearClient

STARTER = Path(__file__).parents[3] / "models" / "starter"
OFFERED = [tool.definition() for tool in TOOLS[:4]]  # weather, time, email, timer
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in OFFERED}
DRAWN = {"temperature": 1.5, "max_tokens": 300}


@dataclass
class House:
    """The gateway's door and what went through to the model."""

    ai: openai.AsyncOpenAI
    client: NearClient

    async def ask(self, text: str, **more: object) -> openai.types.chat.ChatCompletion:
        asked = {"model": "starter", "messages": [{"role": "user", "content": text}], "temperature": 0, "seed": 1}
        return await self.ai.chat.completions.create(**asked | {"max_tokens": 100} | more)


@pytest.fixture(scope="module")
def starter():
    with LLM(STARTER, dtype="float32", max_num_seqs=8, kv_cache_tokens=8192) as llm:
        yield llm


@pytest.fixture
async def house(starter: LLM, tmp_path: Path) -> AsyncIterator[House]:
    client, ring = NearClient(starter), KeyRing(tmp_path / "keys.json")
    key = ring.issue("tests", "acme", "admin", created=1)
    app = create({"starter": Served("starter", client, starter.tokenizer)}, ring)
    async with listening(app) as port:
        ai = openai.AsyncOpenAI(api_key=key, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
        async with ai:
            yield House(ai, client)
    client.thread.close()


def called(choice) -> list[tuple[str, dict]]:
    """Calls, parsed and held to their schemas."""
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]
    for name, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[name])
    return calls


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("What is the weather in Paris?", ("get_weather", {"city": "Paris"})),
        ("Set a timer for 12 minutes.", ("set_timer", {"minutes": 12})),
    ],
)
async def test_the_starter_calls_tools(house: House, text: str, call: tuple[str, dict]):
    made = await house.ask(text, tools=OFFERED)
    assert made.choices[0].finish_reason == "tool_calls"
    assert made.choices[0].message.content is None
    assert called(made.choices[0]) == [call]
    assert made.choices[0].message.tool_calls[0].id.startswith("call_")


async def test_the_starter_says_so_where_no_tool_fits(house: House):
    made = await house.ask("hello", tools=OFFERED)
    assert made.choices[0].finish_reason == "stop"
    assert made.choices[0].message.tool_calls is None
    assert made.choices[0].message.content


async def test_none_offers_nothing(house: House):
    made = await house.ask("What is the weather in Paris?", tools=OFFERED, tool_choice="none")
    assert made.choices[0].message.tool_calls is None
    plain = await house.ask("What is the weather in Paris?")
    assert made.choices[0].message.content == plain.choices[0].message.content


async def test_a_stream_of_calls(house: House):
    """The arguments come in pieces, and the client's own gathering of them is what it gets whole."""
    asked = {
        "model": "starter",
        "messages": [{"role": "user", "content": "Email Bob about lunch."}],
        "tools": OFFERED,
        "temperature": 0,
        "max_tokens": 100,
    }
    whole = await house.ai.chat.completions.create(**asked)
    events = [event async for event in await house.ai.chat.completions.create(**asked, stream=True)]
    pieces = [call for event in events for call in event.choices[0].delta.tool_calls or ()]
    assert [piece.function.name for piece in pieces][:2] == ["send_email", None]
    assert len(pieces) >= 2  # how many depends on how many steps the engine runs at a time
    told = "".join(piece.function.arguments for piece in pieces)
    assert told == whole.choices[0].message.tool_calls[0].function.arguments
    assert not "".join(event.choices[0].delta.content or "" for event in events)
    assert events[-1].choices[0].finish_reason == "tool_calls"
    async with house.ai.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    assert called(final.choices[0]) == called(whole.choices[0])
    assert final.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("seed", range(4))
async def test_required_is_a_call_however_it_is_drawn(house: House, seed: int):
    made = await house.ask("hello", tools=OFFERED, tool_choice="required", **DRAWN, seed=seed, n=2)
    for choice in made.choices:
        if choice.finish_reason == "length":
            continue
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert called(choice)


@pytest.mark.parametrize("name", SCHEMAS)
async def test_a_named_tool_is_the_one(house: House, name: str):
    choice = {"type": "function", "function": {"name": name}}
    made = await house.ask("hello", tools=OFFERED, tool_choice=choice, **DRAWN)
    assert made.choices[0].finish_reason == "tool_calls"
    assert [one for one, _ in called(made.choices[0])] == [name]


async def test_one_call_where_parallel_ones_are_not_wanted(house: House):
    for seed in range(3):
        made = await house.ask(
            "hello", tools=OFFERED, tool_choice="required", parallel_tool_calls=False, **DRAWN, seed=seed
        )
        assert len(called(made.choices[0])) == 1


async def test_results_go_back(house: House):
    first = await house.ask("What is the weather in Paris?", tools=OFFERED)
    said = first.choices[0].message
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        said.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "sunny"},
    ]
    again = await house.ai.chat.completions.create(
        model="starter", messages=messages, tools=OFFERED, temperature=0, max_tokens=30
    )
    assert again.choices[0].message.content or again.choices[0].message.tool_calls
    assert again.usage.prompt_tokens > first.usage.prompt_tokens + 10


async def test_a_tool_that_says_too_much_is_served_unless_it_is_strict(house: House):
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}}
    tools = [{"type": "function", "function": function}]
    made = await house.ask("hello", tools=tools, tool_choice="required", **DRAWN)
    assert made.choices[0].message.tool_calls[0].function.name == "f"
    with pytest.raises(openai.BadRequestError) as caught:
        await house.ask("hello", tools=[{"type": "function", "function": function | {"strict": True}}])
    assert caught.value.param == "tools[0].function.parameters"


class Person(BaseModel):
    name: str = Field(max_length=10)
    age: int = Field(ge=0, le=150)
    likes: list[Literal["tea", "coffee"]] = Field(max_length=2)


async def test_typed_answers(house: House):
    made = await house.ai.chat.completions.parse(
        model="starter", messages=[{"role": "user", "content": "hi"}], response_format=Person, temperature=1.5, seed=2
    )
    assert isinstance(made.choices[0].message.parsed, Person)


async def test_tools_beside_a_form(house: House):
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}}
    for seed in range(4):
        made = await house.ask("hello", tools=OFFERED, response_format=form, **DRAWN, seed=seed)
        if made.choices[0].finish_reason == "stop":
            Person.model_validate_json(made.choices[0].message.content)
        else:
            assert called(made.choices[0])


async def test_forms_of_completions(house: House):
    asked = {"model": "starter", "prompt": "x", "temperature": 1.5, "seed": 3, "max_tokens": 60, "logprobs": 1}
    made = await house.ai.completions.create(**asked, n=3, extra_body={"guided_regex": "[a-c]{2}-[0-9]{3}"})
    for choice in made.choices:
        jsonschema.validate(choice.text, {"pattern": "^[a-c]{2}-[0-9]{3}$"})
        assert len(choice.logprobs.tokens) >= 3
    made = await house.ai.completions.create(**asked, extra_body={"guided_choice": ["red", "green"]})
    assert made.choices[0].text in ("red", "green")


async def test_an_ambiguous_grammar_ends_its_own_request_alone(house: House):
    grammar = 'start: s\ns: s s s s | s s s | s s | "a" | "aa" | "b" | "ab"'
    body = {"guided_grammar": grammar, "ignore_eos": True}
    with pytest.raises(openai.BadRequestError) as caught:
        await house.ask("hello", extra_body=body, max_tokens=400)
    assert caught.value.param == "structured_outputs"
    assert (await house.ask("hello")).choices[0].message.content
