"""What a schema's matcher lets through validates, where its compiler alone would let through more."""

import json
from random import Random

import jsonschema
import pytest

from actors.engine.grammar import Grammars
from actors.engine.soundness import sound
from cluster.errors import InvalidRequest
from tests.actors.engine.tokenizers_made import tokenizer

OWN = tokenizer("bytes")
GRAMMARS = Grammars(lambda: OWN)
NUMBERS = (
    "0",
    "-0",
    "0.0",
    "0.000",
    "-0.0",
    "1",
    "-1",
    "0.5",
    "-0.5",
    "0.001",
    "-0.001",
    "7",
    "0.00000001",
    "1.0",
    "12",
)


def matches(schema: object, text: str, kind: str = "json") -> bool:
    matcher = GRAMMARS.matcher(f"{kind}:{json.dumps(schema, ensure_ascii=False)}")
    assert not matcher.is_error(), matcher.get_error()
    tokens = OWN.plain_tokens(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and bool(matcher.is_accepting())


@pytest.mark.parametrize("kind", ["number", "integer", ["number", "null"]])
@pytest.mark.parametrize("bound", [0, 0.0, -0.0])
@pytest.mark.parametrize(
    "more", [{}, {"maximum": 5}, {"exclusiveMaximum": 0.9}, {"minimum": -1, "maximum": 5}, {"minimum": 0.25}]
)
def test_what_excludes_nought_excludes_it(kind: object, bound: float, more: dict) -> None:
    if kind == "integer" and more.get("exclusiveMaximum") == 0.9:
        return  # there is none
    least = {"type": kind, "exclusiveMinimum": bound, **more}
    swapped = {"minimum": "maximum", "maximum": "minimum", "exclusiveMaximum": "exclusiveMinimum"}
    most = {"type": kind, "exclusiveMaximum": bound, **{swapped[name]: -value for name, value in more.items()}}
    for schema in (least, most, {"allOf": [least, {"maximum": 6}]}, {"allOf": [most, {"minimum": -6}]}):
        taken = [text for text in NUMBERS if matches(schema, text)]
        for text in taken:
            jsonschema.validate(json.loads(text), schema)
        assert "7" in taken or "-1" in taken or "1" in taken or "0.5" in taken or "-0.5" in taken


@pytest.mark.parametrize("seed", range(30))
def test_bounds_of_any_kind(seed: int) -> None:
    dice = Random(seed)
    ends = sorted(dice.choice([0, 0.0, 1, 2.5, 1e-3, 0.004, 1e-7, 100]) * dice.choice([1, -1]) for _ in range(2))
    if ends[0] == ends[1]:
        ends[1] += 1
    schema = {
        "type": "number",
        dice.choice(["minimum", "exclusiveMinimum"]): ends[0],
        dice.choice(["maximum", "exclusiveMaximum"]): ends[1],
    }
    middle = (ends[0] + ends[1]) / 2
    near = [f"{end + way * far:.12f}" for end in ends for way in (1, -1) for far in (0, 1e-8, 1e-5, 0.1)]
    for text in (*NUMBERS, *near, f"{middle:.12f}"):
        if matches(schema, text):
            jsonschema.validate(json.loads(text), schema)
    assert matches(schema, f"{middle:.12f}".rstrip("0").rstrip(".")) or middle == 0


@pytest.mark.parametrize("kind", ["json", "compact"])
def test_a_member_is_not_said_twice_by_another_spelling(kind: str) -> None:
    schema = {"properties": {"ab": {"const": 1}, "a/b": {"const": 2}}, "additionalProperties": {"type": "string"}}
    for twice in ('"a\\u0062"', '"\\u0061b"', '"a\\/b"', '"\\u0061/b"', '"ab"'):
        assert not matches(schema, f'{{"ab":1,{twice}:"x"}}', kind)
    assert matches(schema, '{"ab":1,"a\\nb":"\\"\\\\ü"}', kind)
    assert matches({"properties": {"a": {"const": "\u0001"}}}, '{"a":"\\u0001"}', kind), "the schema asks for it"


@pytest.mark.parametrize(
    "more", [{}, {"additionalProperties": {"type": "integer"}}, {"patternProperties": {"^a": {}}, "properties": {}}]
)
def test_members_are_not_counted_that_may_come_twice(more: dict) -> None:
    schema = {"type": "array", "items": {"anyOf": [{"type": "object", "minProperties": 2, **more}]}}
    for text in (schema, {"$defs": {"a": schema}, "$ref": "#/$defs/a"}):
        with pytest.raises(InvalidRequest, match=r"minProperties of 2 for members of any name.*`properties`"):
            GRAMMARS.check(f"json:{json.dumps(text)}")
    GRAMMARS.check(f"json:{json.dumps({'type': 'object', 'minProperties': 1, **more})}")
    GRAMMARS.check('json:{"const":{"minProperties":2},"enum":[{"minProperties":2}]}')


def test_what_means_the_same_stays_as_it_is() -> None:
    same = '{"type": "number", "exclusiveMinimum": 3, "default": {"exclusiveMinimum": 0}}'
    assert sound(same) is same
    assert sound("true") == "{}"
    with pytest.raises(InvalidRequest, match="nothing validates"):
        sound("false")
    assert matches(True, '{"a":[1]}')
