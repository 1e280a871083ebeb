"""Forms of answers and tools in a request's body: what is refused, by which name, before a model hears of it."""

import asyncio
import json

import pytest

from pipelines.chat import Served
from tests.pipelines.gateway.conftest import Stage
from tests.pipelines.gateway.test_fields import CHAT, HELLO, PROMPT, TEXT

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def deep(levels: int) -> str:
    return '{"type":"array","items":' * levels + "{}" + "}" * levels


def formed(schema: object, **more: object) -> dict:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema} | more}}


def function(**more: object) -> dict:
    return {"tools": [{"type": "function", "function": {"name": "f"} | more}]}


REFUSED = [
    (formed({"type": "strin"}), "response_format.json_schema.schema"),
    (formed({"$ref": "http://127.0.0.1:1/x"}), "response_format.json_schema.schema"),
    (formed({"$ref": "#"}), "response_format.json_schema.schema"),
    (formed({"multipleOf": 733303}), "response_format.json_schema.schema"),
    (formed([]), "response_format.json_schema.schema"),
    (formed(SCHEMA, strict="yes"), "response_format.json_schema.strict"),
    (formed(SCHEMA, name=""), "response_format.json_schema.name"),
    (formed(SCHEMA, schemas={}), "response_format.json_schema.schemas"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "text", "json_schema": {}}}, "response_format.json_schema"),
    ({"guided_json": deep(2000)}, "guided_json"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": 1}, "guided_json"),
    ({"guided_regex": "(a"}, "guided_regex"),
    ({"guided_regex": "(?=a)"}, "guided_regex"),
    ({"guided_regex": 7}, "guided_regex"),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_choice": {"a": 1}}, "guided_choice"),
    ({"guided_grammar": "start: nothing"}, "guided_grammar"),
    ({"guided_grammar": "start: %json {}"}, "guided_grammar"),
    ({"structured_outputs": "regex:a"}, "structured_outputs"),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
    ({"structured_outputs": {"structural_tag": "a"}}, "structured_outputs.structural_tag"),
    ({"guided_regex": "a"} | formed(SCHEMA), "response_format.json_schema.schema"),
]
REFUSED_TOOLS = [
    ({"tools": {}}, "tools"),
    ({"tools": [1]}, "tools[0]"),
    ({"tools": [{"type": "search"}]}, "tools[0]"),
    ({"tools": [function()["tools"][0]] * 200}, "tools"),
    ({"tools": [function()["tools"][0]] * 2}, "tools"),
    (function(name="a b"), "tools[0].function.name"),
    (function(name="x" * 65), "tools[0].function.name"),
    (function(description=1), "tools[0].function.description"),
    (function(strict=1), "tools[0].function.strict"),
    (function(script="rm"), "tools[0].script"),
    (function(parameters=[1]), "tools[0].function.parameters"),
    (function(parameters={"type": "string"}), "tools[0].function.parameters.type"),
    (function(parameters={"properties": {"a": {"multipleOf": 733303}}}), "tools[0].function.parameters"),
    ({"tool_choice": "required"}, "tool_choice"),
    (function() | {"tool_choice": "any"}, "tool_choice"),
    (function() | {"tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    (function() | {"parallel_tool_calls": 1}, "parallel_tool_calls"),
    (function(), "tools"),  # this model's template has no place for them
]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
REFUSED_MESSAGES = [
    ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
    ([{"role": "user", "content": "x", "tool_call_id": "1"}], "messages[0].tool_call_id"),
    ([{"role": "user", "content": "x", "tool_calls": [CALL]}], "messages[0].tool_calls"),
    ([{"role": "assistant", "tool_calls": [1]}], "messages[0].tool_calls[0]"),
    ([{"role": "assistant", "tool_calls": [CALL] * 200}], "messages[0].tool_calls"),
    ([{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "[1]"}}]}],
     "messages[0].tool_calls[0].function.arguments"),
    ([{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "[" * 9000}}]}],
     "messages[0].tool_calls[0].function.arguments"),
    ([{"role": "assistant", "tool_calls": [CALL | {"function": {"name": 5}}]}],
     "messages[0].tool_calls[0].function.name"),
    ([{"role": "assistant"}], "messages[0].content"),
    ([{"role": "user", "content": "x"}, {"role": "user", "content": ["x"]}], "messages[1].content[0].type"),
    ([{"role": "user", "content": "x"}] * 3 + [{"role": "robot", "content": "x"}], "messages[3].role"),
    ([{"role": "user", "content": "x"}, 5], "messages[1]"),
    ([{"role": "user", "content": "x", "colour": 5}], "messages[0].colour"),
]  # fmt: skip


async def refused(stage: Stage, path: str, body: dict, field: str) -> None:
    async with stage.http() as http:
        answer = await http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == field
    assert len(answer.content) < 1000
    assert stage.client.streams == []


@pytest.mark.parametrize(("body", "field"), REFUSED, ids=lambda case: str(case)[:60])
async def test_forms_name_the_field(stage: Stage, body: dict, field: str):
    await refused(stage, CHAT, HELLO | body, field)
    await refused(stage, TEXT, PROMPT | body, field)


@pytest.mark.parametrize(("body", "field"), REFUSED_TOOLS, ids=lambda case: str(case)[:60])
async def test_tools_name_the_field(stage: Stage, body: dict, field: str):
    await refused(stage, CHAT, HELLO | body, field)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}], ids=str)
async def test_a_forced_call_leaves_no_room_for_a_form(stage: Stage, choice: object):
    form = {"response_format": {"type": "json_object"}}
    body = HELLO | function() | {"tool_choice": choice} | form
    await refused(stage, CHAT, body, "response_format")
    async with stage.http() as http:
        answer = await http.post(CHAT, json=body)
    assert "tool_choice" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("messages", "field"), REFUSED_MESSAGES, ids=lambda case: str(case)[:60])
async def test_messages_name_the_field(stage: Stage, messages: list, field: str):
    await refused(stage, CHAT, HELLO | {"messages": messages}, field)


async def test_a_schema_2000_deep_is_refused_unparsed(stage: Stage):
    body = json.dumps(HELLO)[:-1] + ',"guided_json":' + deep(2000) + "}"
    async with stage.http() as http:
        answer = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("body", "spec"),
    [
        (formed(SCHEMA, strict=True), "json:" + json.dumps(SCHEMA, separators=(",", ":"))),
        ({"response_format": {"type": "json_object"}}, 'json:{"type":"object"}'),
        ({"response_format": {"type": "text"}}, None),
        ({"guided_regex": "(a+)+b"}, "regex:(a+)+b"),
        ({"guided_regex": "(a{1,3000}){1,3000}"}, "regex:(a{1,3000}){1,3000}"),
        ({"guided_choice": ["a", "b"]}, 'choice:["a","b"]'),
        ({"guided_grammar": 'root ::= "a"', "guided_decoding_backend": "x"}, 'grammar:root ::= "a"'),
        ({"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}}, None),
        ({"structured_outputs": {"json_object": False}}, None),
    ],
)
async def test_what_the_replica_hears(stage: Stage, body: dict, spec: str | None):
    async with stage.http() as http:
        for path, asked in ((CHAT, HELLO), (TEXT, PROMPT)):
            answer = await http.post(path, json=asked | {"max_tokens": 2} | body)
            assert answer.status_code == 200, answer.text
    heard = [stream.params.constraint for stream in stage.client.streams]
    if "disable_any_whitespace" in str(body):
        assert [one.partition(":")[0] for one in heard] == ["compact"] * 2
    else:
        assert heard == [spec] * 2


async def test_compiling_holds_up_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """While one tenant's schema is compiled, another's answer comes."""
    begun, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(self: object, spec: str, field: str) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()

    monkeypatch.setattr("actors.engine.grammar.Grammars.check", slow)
    async with stage.http() as http:
        waiting = asyncio.ensure_future(http.post(CHAT, json=HELLO | {"max_tokens": 2} | formed(SCHEMA)))
        await begun.wait()
        assert (await http.post(CHAT, json=HELLO | {"max_tokens": 2})).status_code == 200
        assert not waiting.done()
        go.set()
        assert (await waiting).status_code == 200


async def test_too_many_to_compile_are_sent_away(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipelines.verdicts.WAITING", 0)
    async with stage.http() as http:
        answer = await http.post(CHAT, json=HELLO | formed(SCHEMA))
    assert answer.status_code == 429
    assert answer.headers["retry-after"]


async def test_what_takes_too_long_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipelines.verdicts.SECONDS", 0.0)
    await refused(stage, CHAT, HELLO | formed(SCHEMA), "response_format.json_schema.schema")


async def test_a_model_keeps_one_book_of_verdicts(stage: Stage):
    served = Served("starter", stage.client, stage.tokenizer)
    for number in range(50):
        await served.verdicts.check(f'choice:["{number}"]', "guided_choice")
    assert len(served.verdicts._grammars._verdicts) == 50
    assert len(served.verdicts._grammars._compiled) == 0  # the gateway matches nothing
