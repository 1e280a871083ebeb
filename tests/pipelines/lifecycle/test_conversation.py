import json

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipelines.lifecycle.conversation import TEMPLATE, messages, prompt, spans
from pipelines.lifecycle.data.mixture import held_out_set


@pytest.fixture(scope="module")
def render():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(TEMPLATE)
    return lambda said, **rest: template.render(messages=said, **rest)


@pytest.mark.parametrize("system", [None, "Answer briefly."])
def test_the_template_writes_what_training_reads(render, system):
    for example in held_out_set(8):
        tools = list(example.tools) or None
        whole = render(messages(example.turns, system), tools=tools)
        assert whole == "".join(text for text, _ in spans(example.turns, system, example.tools)) + "\n"
        asked = render(messages(example.turns[:-1], system), tools=tools, add_generation_prompt=True)
        assert asked == prompt(example.turns, system, example.tools)


def test_only_the_assistant_is_learnt_from():
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert [text for text, mine in spans(turns, None, ()) if mine] == ["b<|im_end|>", "d<|im_end|>"]


def test_a_call_is_written_as_the_model_writes_it(render):
    call = {"type": "function", "function": {"name": "get_time", "arguments": '{"city": "Oslo"}'}}
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert '<tool_call>{"name": "get_time", "arguments": {"city": "Oslo"}}</tool_call><|im_end|>' in render(said)
    call["function"]["arguments"] = {"city": "Oslo"}
    assert '"arguments": {"city": "Oslo"}}</tool_call>' in render(said)


def test_content_may_come_in_parts(render):
    said = [{"role": "user", "content": [{"type": "text", "text": "1 + "}, {"type": "text", "text": "2"}]}]
    assert render(said) == "<|im_start|>user\n1 + 2<|im_end|>\n"


def test_a_developer_turn_is_a_system_turn(render):
    assert render([{"role": "developer", "content": "x"}]) == "<|im_start|>system\nx<|im_end|>\n"


def test_a_tool_without_parameters_or_description(render):
    rendered = render([{"role": "user", "content": "?"}], tools=[{"type": "function", "function": {"name": "now"}}])
    assert rendered.startswith("<|im_start|>system\nTools:\n- now(): <|im_end|>\n")
