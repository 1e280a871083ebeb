"""The shapes of a constraint and the bounds on what may be asked."""

import math

import pytest

from actors.constraint import CHOICES, SCHEMA_DEPTH, StructuredOutputsParams, digits, structured
from actors.engine.plan import pack_params, unpack_params
from actors.messages import SamplingParams
from cluster.errors import InvalidRequest

OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}


def deep(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("asked", "spec"),
    [
        (None, None),
        ({"json": OBJECT}, 'json:{"type":"object","properties":{"a":{"type":"string"}}}'),
        ({"json": '{"type": "null"}'}, 'json:{"type":"null"}'),
        ({"json": OBJECT | {"title": "é"}, "disable_any_whitespace": True}, None),
        ({"json_object": True}, 'json:{"type":"object"}'),
        ({"json_object": False}, None),
        ({"regex": "a+"}, "regex:a+"),
        ({"choice": ("a", "b")}, 'choice:["a","b"]'),
        ({"grammar": 'root ::= "a"'}, 'grammar:root ::= "a"'),
        (StructuredOutputsParams(regex="b"), "regex:b"),
        ("regex:c", "regex:c"),
    ],
)
def test_every_shape_becomes_one_text(asked, spec):
    made = structured(asked)
    if isinstance(asked, dict) and asked.get("disable_any_whitespace"):
        assert made.startswith("compact:{")
    else:
        assert made == spec


@pytest.mark.parametrize("asked", [{}, {"json": None}, {"disable_any_whitespace": True}, StructuredOutputsParams()])
def test_an_object_that_asks_for_nothing_is_refused(asked):
    with pytest.raises(InvalidRequest, match=r"^structured_outputs: .*json, regex, choice, grammar and json_object"):
        structured(asked)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"json": 5}, "json"),
        ({"json": "{"}, "json"),
        ({"json": "[" * 2000}, "json"),
        ({"json": "[1]"}, "json"),
        ({"json": deep(2000)}, "json"),
        ({"json": deep(SCHEMA_DEPTH)}, "json"),
        ({"json": {"enum": ["x" * 2**18]}}, "json"),
        ({"json": {"const": math.nan}}, "json"),
        ({"json": {"const": {1, 2}}}, "json"),
        ({"json": {"const": "\ud800"}}, "json"),
        ({"json": {"x-guidance": {"lenient": True}}}, "json"),
        ({"json": {"multipleOf": 104729 * 7}}, "json"),
        ({"json": {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}}, "json"),
        ({"json": {"multipleOf": 10**400}}, "json"),
        ({"regex": ""}, "regex"),
        ({"regex": 5}, "regex"),
        ({"regex": "a" * 5000}, "regex"),
        ({"choice": []}, "choice"),
        ({"choice": "ab"}, "choice"),
        ({"choice": ["a", 1]}, "choice"),
        ({"choice": [""]}, "choice"),
        ({"choice": ["a"] * (CHOICES + 1)}, "choice"),
        ({"choice": ["a" * 1000] * 100}, "choice"),
        ({"grammar": "start: %json {}"}, "grammar"),
        ({"grammar": "start: % \t json {}"}, "grammar"),
        ({"grammar": 'start: "a"\n' * 9000}, "grammar"),
        ({"json_object": 1}, "json_object"),
        ({"disable_any_whitespace": "no", "regex": "a"}, "disable_any_whitespace"),
        ({"structural_tag": "x"}, "structural_tag"),
    ],
)
def test_what_is_beyond_bounds_is_refused_by_name(asked, field):
    with pytest.raises(InvalidRequest) as caught:
        structured(asked)
    assert caught.value.param == f"structured_outputs.{field}"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("number", "told"), [(0.01, 1), (1000, 1), (25, 25), (2.5, 25), (-1, 1), (0, 1)])
def test_what_a_remainder_costs(number, told):
    assert digits(number) == told


def test_a_constraint_travels_as_text():
    params = SamplingParams(structured_outputs={"json": OBJECT}, n=2)
    wire = pack_params(params)
    assert wire == {"n": 2, "structured_outputs": params.constraint}
    assert unpack_params(wire) == params


def test_a_schema_just_within_bounds_is_taken():
    assert structured({"json": deep(SCHEMA_DEPTH - 1)})
    assert structured({"json": {"properties": {"multipleOf": {"type": "integer"}}}})


@pytest.mark.parametrize(("choices", "value"), [([], "[]"), ([""], 'the choice ""'), (["a", 1], "the choice 1")])
def test_choices_that_say_nothing_are_refused_with_what_to_give(choices, value):
    with pytest.raises(InvalidRequest) as caught:
        structured({"choice": choices})
    assert f"{value} is not accepted" in str(caught.value)
    assert "at least one non-empty text" in str(caught.value)
