"""States have one name where the same may follow, and two where it may not."""

import json
from random import Random

import numpy as np
import pytest

from actors.engine.states import NAME_BYTES, ROOM_BYTES, Place, States, kind_of, named

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "in full"},
        "age": {"type": "integer"},
        "home": {"type": "object", "properties": {"city": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "code": {"type": "string", "pattern": "^[a-z]+$"},
        "kind": {"enum": ["a", "b"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
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
        ('{"name": "Anna", "age": 20,', '{"name": "", "age": 1,'),
        ('{"name": "An', '{"name": "'),
        ('{"name": "a\\"b"', '{"name": "a\\"b"'),  # an escape may be open, or half of one
        ('{"name": "a\\', '{"name": "a\\'),
        ('{"age": 0', '{"age": 0'),
        ('{"age": -12', '{"age": -12'),
        ('{"home": {"city": "Oslo"}, "tags": ["x", "yy"', '{"home": {"city": ""}, "tags": ["", ""'),
        ('{"home": {"name": "Oslo"}', '{"home": {"name": "Oslo"}'),
        ('{"code": "abc", "kind": "a"', '{"code": "abc", "kind": "a"'),
        ('{"either": "abc"', '{"either": "abc"'),
        ('{"other": {"name": "abc"', '{"other": {"name": "abc"'),
        ('{"name": "grün", "na', '{"name": "", "na'),
    ],
)
def test_what_cannot_matter_any_more_is_left_out(text: str, expected: str):
    assert name(text.encode()) == expected.encode()


@pytest.mark.parametrize("seed", range(20))
def test_a_name_does_not_depend_on_how_its_text_is_cut(seed: int):
    dice = Random(seed)
    text = '{"name": "grün x", "age": 1203, "home": {"city": "Łódź"}, "tags": ["a", ""], "code": "q", "o": [1, {}]}'
    whole = text.encode()
    cuts = sorted(dice.sample(range(1, len(whole)), 12))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert name(*parts) == name(whole)


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [PERSON, {"type": "object"}]},
        {**PERSON, "minProperties": 2},
        {**PERSON, "patternProperties": {}},
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
    states.learn_mask(states.start, np.zeros(ROOM_BYTES // 4, np.uint32), forced=False)
    assert states.start.mask is None
    for token in range(10**6):
        if states.learn(states.start, token, b"%d" % token, fits=True) is None:
            break
    assert len(states.start.steps) < 10_000
    assert states.learn(states.start, 10**6, b"x", fits=False) is states.start
