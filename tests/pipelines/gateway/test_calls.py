"""Calls of tools, heard in texts that come in pieces."""

import json

import pytest

from pipelines.gateway.calls import Bare, Form, Tagged, form_of
from pipelines.gateway.offer import Offer, offer

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"city": {}}}}}
TIME = {"type": "function", "function": {"name": "get_time"}}
HERMES, LLAMA = Tagged(lines=True), Bare()

Told = tuple[str, list[tuple[str, str]]]


def offered(**more: object) -> Offer:
    made = offer({"tools": [WEATHER, TIME]} | more)
    assert made is not None
    return made


def heard(form: Form, pieces: list[str], asked: Offer | None = None) -> Told:
    """What is said and what is called, however it is cut."""
    ear = form.ear(asked or offered())
    said, calls = "", []
    for one in [*(one for piece in pieces for one in ear.feed(piece)), *ear.end()]:
        assert bool(one.text) != (one.call is not None)
        said += one.text
        if one.name:
            assert one.call == len(calls)
            calls.append([one.name, ""])
        if one.call is not None:
            calls[one.call][1] += one.arguments
    assert ear.calls == len(calls)
    return said, [tuple(call) for call in calls]


PARIS = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
BRACES = '{"name": "get_weather", "arguments": {"city": "}{\\"]</tool_call>\\\\"}}'
CITY = ("get_weather", '{"city": "Paris"}')
TAGGED = {
    "starter": (f"<tool_call>{PARIS}</tool_call>", "", [CITY]),
    "lines": (f"\n<tool_call>\n{PARIS}\n</tool_call>\n", "", [CITY]),
    "two": (f"<tool_call>\n{PARIS}\n</tool_call>\n<tool_call>\n{PARIS}\n</tool_call>", "", [CITY, CITY]),
    "talk": (f"Let me see.\n<tool_call>{PARIS}</tool_call>", "Let me see.\n", [CITY]),
    "after": (f"<tool_call>{PARIS}</tool_call>\n so it  is", "so it  is", [CITY]),
    "text": ("No tool fits < this.", "No tool fits < this.", []),
    "spaces": ("\n  indented", "\n  indented", []),
    "only spaces": ("\n ", "\n ", []),
    "nearly": ("a <tool_ca b <tool_call", "a <tool_ca b <tool_call", []),
    "braces": (f"<tool_call>{BRACES}</tool_call>", "", [("get_weather", '{"city": "}{\\"]</tool_call>\\\\"}')]),
    "late name": (
        '<tool_call>{"arguments":{"city":"Paris"}, "name":"get_weather"}</tool_call>', "",
        [("get_weather", '{"city":"Paris"}')],
    ),
    "no arguments": ('<tool_call>{"name": "get_time"}</tool_call>', "", [("get_time", "{}")]),
    "unknown": ('<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
                '<tool_call>{"name": "rm", "arguments": {}}</tool_call>', []),
    "no JSON": ("<tool_call>hello</tool_call>", "<tool_call>hello</tool_call>", []),
    "cut in the name": ('<tool_call>{"name": "get_w', '<tool_call>{"name": "get_w', []),
    "cut": ('<tool_call>{"name": "get_weather", "arguments": {"city": "Pa', "", [("get_weather", '{"city": "Pa')]),
    "cut tag": (f"<tool_call>{PARIS}</tool_c", "", [CITY]),
}  # fmt: skip
CALL = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
BARE = {
    "one": (CALL, "", [CITY]),
    "python": (f"<|python_tag|>{CALL}", "", [CITY]),
    "two": (f"{CALL}; {CALL}", "", [CITY, CITY]),
    "spaces": (f"\n {CALL}\n", "", [CITY]),
    "text": ("It is {warm}.", "It is {warm}.", []),
    "other JSON": ('{"warm": true}', '{"warm": true}', []),
    "unknown": ('{"name": "rm", "parameters": {}}', '{"name": "rm", "parameters": {}}', []),
    "cut": ('{"name": "get_weather", "parameters": {"city', "", [("get_weather", '{"city')]),
    "cut in the name": ('{"name": "get_w', '{"name": "get_w', []),
    "nearly python": ("<|py", "<|py", []),
}


@pytest.mark.parametrize("name", TAGGED)
def test_tagged(name: str):
    everything(HERMES, *TAGGED[name])


@pytest.mark.parametrize("name", BARE)
def test_bare(name: str):
    everything(LLAMA, *BARE[name])


def everything(form: Form, text: str, said: str, calls: list[tuple[str, str]]) -> None:
    assert heard(form, [text]) == (said, calls)
    assert heard(form, list(text)) == (said, calls)
    for cut in range(1, len(text)):
        assert heard(form, [text[:cut], text[cut:]]) == (said, calls)


def test_arguments_are_told_as_they_come():
    ear = HERMES.ear(offered())
    ear.feed('<tool_call>{"name": "get_weather", "argum')
    assert [one.arguments for piece in ('ents": {"ci', 'ty": "P', 'aris"}', "}</tool_call>")
            for one in ear.feed(piece)] == ['{"ci', 'ty": "P', 'aris"}']  # fmt: skip


def test_one_call_is_all_where_one_was_asked_for():
    text = f"<tool_call>{PARIS}</tool_call><tool_call>{PARIS}</tool_call>"
    for alone in ({"parallel_tool_calls": False}, {"tool_choice": WEATHER}):
        said, calls = heard(HERMES, list(text), offered(**alone))
        assert calls == [CITY]
        assert said == f"<tool_call>{PARIS}</tool_call>"
    assert heard(LLAMA, [f"{CALL}; {CALL}"], offered(parallel_tool_calls=False))[1] == [CITY]


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ('{{ \'<tool_call>{"name": "\' }}', Tagged(lines=False)),
        ('{{- \'\\n<tool_call>\\n{"name": "\' }}', Tagged(lines=True)),
        ("<tool_call>\n{{ tool_call }}", Tagged(lines=True)),
        ("<tool_call>\\n<function=", None),
        ('{% if tools %}{"name": function name, "parameters": dictionary}<|python_tag|>{% endif %}', Bare()),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", None),
        ("", None),
    ],
)
def test_the_template_chooses_the_form(template: str, form: Form | None):
    assert form_of(template) == form


@pytest.mark.parametrize("form", [Tagged(False), HERMES, LLAMA])
@pytest.mark.parametrize("choice", ["required", "auto", WEATHER])
@pytest.mark.parametrize("content", [None, '{"type": "object"}'])
def test_specs_hold_every_offered_tool(form: Form, choice: object, content: str | None):
    asked = offered(tool_choice=choice)
    spec = form.spec(asked, content)
    if spec is None:
        assert (form, choice, content) == (LLAMA, "auto", None)
        return
    assert spec.startswith("calls:")
    assert (json.dumps('{"name": "get_time"') in spec) == (not asked.named)
    assert ("content: %json" in spec) == (content is not None and choice == "auto")


@pytest.mark.parametrize("form", [HERMES, LLAMA])
def test_a_call_that_was_cut_off_is_open(form: Form):
    text = f"<tool_call>{PARIS}</tool_call>" if form is HERMES else PARIS
    for size in range(len(text) + 1):
        ear = form.ear(offered())
        ear.feed(text[:size])
        ear.end()
        named, whole = ear.calls == 1, PARIS in text[:size]
        assert ear.open == (named and not whole)
