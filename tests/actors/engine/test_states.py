"""States have one name where the same may follow, and two where it may not."""

import json
from random import Random

import numpy as np
import pytest

from actors.engine.mask import Mask
from actors.engine.states import NAME_BYTES, ROOM_BYTES, Place, States, kind_of, named

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "in full"},
        "age": {"type": "integer"},
        "home": {"type": "object", "properties": {"city": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "code": {"type": "string", "pattern": "^[a-z]+$"},
        "short": {"type": "string", "maxLength": 9},
        "few": {"type": "array", "items": {"type": "integer", "maximum": 50}, "maxItems": 9},
        "pair": {"type": "array", "items": [{"type": "string"}, {"type": "number"}]},
        "kind": {"enum": ["a", "b"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "number"}]},
    },
}
PLACE = Place(None, None, False, False, kind_of("json:" + json.dumps(PERSON)))


def name(*parts: bytes) -> bytes:
    closed, still, place = b"", b"", PLACE
    for part in parts:
        closed, still, place = named(closed, still, place, part)
    return closed + still


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Anna", "age": 20,', '{"name":#,"age":#,'),
        ('{"name": "An', '{"name":"'),
        ('{"name": "a\\"b"', '{"name":#'),
        ('{"name": "a\\"b', '{"name":"a\\"b'),
        ('{"name": "a\\', '{"name":"a\\'),  # an escape may be half of one
        ('{"age": 0', '{"age":0'),
        ('{"age": 210', '{"age":1'),
        ('{"age": 210 ', '{"age":# '),
        ('{"age": -12', '{"age":-12'),
        ('{"age": -12,\n  ', '{"age":#,\n  '),
        ('{"home": {"city": "Oslo"}, "tags": ["x", "yy"', '{"home":#,"tags":[1,#'),
        ('{"home": {"name": "Oslo", "n', '{"home":{"name":#,"n'),
        ('{"tags": ["x", "yy", "z', '{"tags":[1,"'),
        ('{"tags": ["x"], ', '{"tags":#, '),
        ('{"few": [1, 2, 31', '{"few":[3,31'),
        ('{"few": [1, 2, 31]', '{"few":#'),
        ('{"pair": ["a", "b"', '{"pair":["a","b"'),
        ('{"code": "abc", "kind": "a"', '{"code":#,"kind":#'),
        ('{"code": "abc', '{"code":"abc'),
        ('{"short": "abc', '{"short":"xxx'),
        ('{"short": "abc", "sh', '{"short":#,"sh'),
        ('{"either": "abc"', '{"either":#'),
        ('{"either": 1', '{"either":1'),
        ('{"either": true, "kind": nul', '{"either":#,"kind":nul'),
        ('{"other": {"name": "abc"', '{"other":{"name":"abc"'),
        ('{"other": {"name": [["abc"], 7 ]}', '{"other":#'),
        ('{"name": "grün", "na', '{"name":#,"na'),
    ],
)
def test_what_cannot_matter_any_more_is_left_out(text: str, expected: str):
    assert name(text.encode()) == expected.encode()


@pytest.mark.parametrize("seed", range(20))
def test_a_name_does_not_depend_on_how_its_text_is_cut(seed: int):
    dice = Random(seed)
    text = '{"name": "grün x", "age": 1203, "home": {"city": "Łódź"}, "tags": ["a", ""],\n'
    text += ' "few": [1, 22,3], "short": "łx", "code": "q", "o": [1, {}], "either": [], "tags": [ "b" ]}'
    whole = text.encode()
    cuts = sorted(dice.sample(range(1, len(whole)), 25))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert name(*parts) == name(whole)


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [PERSON, {"type": "object"}]},
        {**PERSON, "minProperties": 2},
        {**PERSON, "patternProperties": {}},
        {**PERSON, "dependentRequired": {"name": ["age"]}},
        True,
    ],
)
def test_nothing_is_left_out_where_a_text_may_be_read_in_two_ways(schema: object):
    assert kind_of("json:" + json.dumps(schema)) is None
    assert kind_of('regex:"[a-z]+"') is None


def test_a_form_used_once_learns_nothing():
    states = States()
    assert states.learn(states.begin(), 5, b"a", fits=True) is None
    assert not states.start.steps
    second = states.begin()
    after = states.learn(second, 5, b"a", fits=True)
    assert after is not None
    assert states.start.steps == {5: after}
    assert states.grown() > 0
    assert states.grown() == 0


def test_what_is_learnt_is_bounded():
    states = States()
    states.begin()
    state, seen = states.begin(), 0
    while state is not None and seen < 2 * NAME_BYTES:
        state, seen = states.learn(state, 5, b"abcdefgh", fits=True), seen + 8
    assert seen == NAME_BYTES + 8
    states.learn_mask(states.start, Mask(np.zeros(ROOM_BYTES // 4, np.uint32)))
    assert states.start.mask is None
    for token in range(10**6):
        if states.learn(states.start, token, b"%d" % token, fits=True) is None:
            break
    assert len(states.start.steps) < 10_000
    assert states.learn(states.start, 10**6, b"x", fits=False) is states.start
