"""What is refused before it is compiled, and what is not."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher

from actors.burden import LEVELS, MEETING, MEMBER_PATTERNS, MEMBERS, OPTIONAL, RULES, Meetings, levels, pointed
from actors.constraint import structured
from actors.deep import deep_thread
from actors.engine.grammar import grammar
from cluster.errors import InvalidRequest

TEXT = {"type": "string"}
WORDS = "abcdefghijklmnopqrstuvwxyz"


def members(count: int, required: int = 0, value: Any = TEXT) -> dict[str, Any]:
    names = [f"p{index}" for index in range(count)]
    return {"type": "object", "properties": dict.fromkeys(names, value), "required": names[:required]}


def pattern(number: int) -> dict[str, Any]:
    return {"properties": {"a": {"type": "string", "pattern": f"^.*a{number}.*$"}}}


def chain(length: int) -> dict[str, Any]:
    """Definitions each of which adds a pattern to the next one's."""
    links = {f"d{index}": {"pattern": f"a{index}", "$ref": f"#/$defs/d{index + 1}"} for index in range(length)}
    return {"$defs": links | {f"d{length}": {}}, "$ref": "#/$defs/d0"}


def nested(definitions: int, depth: int, to: str = "#/$defs/") -> dict[str, Any]:
    """Each of them nests so deep and leads on to the next; none of that is dear but the way."""
    made: dict[str, Any] = {}
    for index in range(definitions):
        value: dict[str, Any] = {"$ref": f"{to}{index + 1}"} if index + 1 < definitions else TEXT
        for _ in range(depth):
            value = {"items": value}
        made[str(index)] = value
    return {"$ref": f"{to}0", "$defs": made}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"json": members(OPTIONAL + 1)}, f"more than {OPTIONAL} optional properties in a row"),
        ({"json": {"type": "array", "items": members(3000, required=3000)}}, "an object of 3000 properties"),
        ({"json": {"patternProperties": {f"^{index}.*a": {} for index in range(300)}}}, "300 patternProperties"),
        ({"json": {"allOf": [pattern(index) for index in range(60)]}}, "match 60 patterns"),
        ({"json": chain(MEETING + 1)}, f"match {MEETING + 1} patterns"),
        ({"json": chain(2000)}, "a schema that leads 2002 levels deep"),
        ({"json": nested(100, 30)}, "levels deep"),
        ({"json": nested(100, 30, "json-schema:///#/%24defs/")}, "levels deep"),
        ({"grammar": "\n".join(f"r{index}: r{index + 1}" for index in range(2000))}, "a grammar of 2000 rules"),
        ({"grammar": "start: A\nA: " + " & ".join(f"/.*a{index}.*/" for index in range(60))}, "59 times & or ~"),
    ],
)
def test_what_no_compiler_should_begin_with(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        structured(asked, "form")
    assert str(caught.value.param).startswith("form.")


@pytest.mark.parametrize(
    "asked",
    [
        {"json": members(OPTIONAL)},
        {"json": members(MEMBERS, required=MEMBERS)},
        {"json": members(2 * OPTIONAL, required=OPTIONAL)},
        {"json": members(MEMBERS, value=False)},
        {"json": {"patternProperties": {f"^{index}": {} for index in range(MEMBER_PATTERNS)}}},
        {"json": {"allOf": [pattern(index) for index in range(MEETING)]}},
        {"json": members(200, value={"type": "string", "pattern": "^a+$"})},
        {"json": {"$defs": {"d": {"format": "date"}}, "properties": {key: {"$ref": "#/$defs/d"} for key in WORDS}}},
        {"json": nested(10, 40)},
        {"json": {"$defs": {key: {"items": {"items": {"$ref": f"#/$defs/{key}"}}} for key in WORDS}, **TEXT}},
        {"grammar": "start: r0\n" + "\n".join(f'r{index}: "a: b"' for index in range(RULES - 1))},
        {"json": {"required": 7, "properties": [], "allOf": {}, "$ref": 3, "patternProperties": 1}},  # for the compiler
        {"grammar": 'start: "' + "&~" * 50 + '" /[&~]{9}&&&&&&&&&/ // & & & & & & & & &'},
    ],
)  # fmt: skip
def test_what_people_ask_for_is_left_alone(asked: dict[str, Any]) -> None:
    assert structured(asked)


def test_alternatives_and_members_do_not_meet_and_what_is_joined_does() -> None:
    one, two = {"pattern": "a"}, {"allOf": [{"pattern": "a"}, {"format": "date"}]}
    assert Meetings({}).of({"anyOf": [one, two, one]}) == 2
    assert Meetings({}).of({"pattern": "b", "anyOf": [one, two]}) == 3
    assert Meetings({}).of({"properties": {"a": one, "b": two}, "items": one}) == 2
    round_about = {"$defs": {"n": {"pattern": "a", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}
    assert Meetings(round_about).of(round_about) == 1


def test_references_are_followed_as_they_are_written() -> None:
    root = {"$defs": {"a/b~": [{}, {"x": 1}]}}
    assert pointed(root, "#/$defs/a~1b~0/1/x") == 1
    assert pointed(root, "#") is root
    assert pointed(root, "#/$defs/a~1b~0/7") is None
    assert pointed(root, "#/$defs/none/x") is None


def test_levels_are_those_of_the_longest_way_in_whatever_order_it_is_gone() -> None:
    assert levels({"items": {"items": {}}}) == 3
    assert levels({"properties": {"a": {}, "b": {"items": {}}}}) == 4
    refers = {"$ref": "#/$defs/a"}
    assert levels({"$defs": {"a": {"items": {}}}, "anyOf": [refers]}) == 3 + 2
    assert levels({"$defs": {"a": {"items": refers}}, **refers}) == 1 + 2, "what comes round is gone once"
    cycle = {str(index): {"items": {"$ref": f"#/$defs/{(index + 1) % 9}"}} for index in range(9)}
    for first in range(9):
        assert levels({"$defs": cycle, "$ref": f"#/$defs/{first}"}) == 1 + 9 * 2
    hub = {"$defs": cycle, "properties": {key: {"$ref": f"#/$defs/{key}"} for key in reversed(cycle)}}
    assert levels(hub) == 3 + 9 * 2
    assert levels({"$ref": "#"}) == 1
    assert levels({"$ref": "#/nowhere"}) == 1


def test_what_is_let_through_has_room_on_the_stack_of_its_thread() -> None:
    """The compiler recurses: what goes too deep for the stack ends the process without a word."""
    deepest = nested(LEVELS // 12 - 1, 11)
    assert LEVELS - 30 < levels(deepest) <= LEVELS
    spec = structured({"json": deepest})
    with deep_thread("compile") as thread:
        assert thread.submit(lambda: LLMatcher.validate_grammar(grammar(spec))).result() is not None
    far = nested(180, 57)  # such as went through before, and ended a process
    with deep_thread("compile") as thread:
        text = LLMatcher.grammar_from_json_schema(json.dumps(far))
        thread.submit(lambda: LLMatcher.validate_grammar(text)).result()
