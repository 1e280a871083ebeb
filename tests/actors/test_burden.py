"""What is refused before it is compiled, and what is not."""

from typing import Any

import pytest

from actors.burden import MEETING, MEMBER_PATTERNS, MEMBERS, OPTIONAL, Meetings, pointed
from actors.constraint import structured
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


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"json": members(OPTIONAL + 1)}, f"more than {OPTIONAL} optional properties in a row"),
        ({"json": {"type": "array", "items": members(3000, required=3000)}}, "an object of 3000 properties"),
        ({"json": {"patternProperties": {f"^{index}.*a": {} for index in range(300)}}}, "300 patternProperties"),
        ({"json": {"allOf": [pattern(index) for index in range(60)]}}, "match 60 patterns"),
        ({"json": chain(MEETING + 1)}, f"match {MEETING + 1} patterns"),
        ({"json": chain(2000)}, "a chain of references"),
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
