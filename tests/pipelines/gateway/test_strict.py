"""What resembles JSON and is none, or is too much of it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InvalidRequest
from pipelines.gateway.strict import DEPTH, parse

DEEP = 10_000
BAD = {
    "arrays 10,000 deep": b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "arrays 10,000 deep and never closed": b'{"a":' + b"[" * DEEP,
    "objects 10,000 deep": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "one level too deep": b'{"a":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "a million keys": b"{" + b",".join(b'"k%d":1' % key for key in range(10**6)) + b"}",
    "a million numbers": b'{"a":[' + b"1," * 10**6 + b"1]}",
    "a million empty objects": b'{"a":[' + b"{}," * 10**6 + b"{}]}",
    "strings that end in backslashes": b'{"a":[' + b'"\\\\",' * 5 * 10**5 + b'""]}',
    "NaN": b'{"temperature":NaN}',
    "Infinity": b'{"temperature":Infinity}',
    "-Infinity": b'{"temperature":-Infinity}',
    "10^400": b'{"temperature":1' + b"0" * 400 + b"}",
    "1e400": b'{"temperature":1e400}',
    "-1e400 deep inside": b'{"temperature":[[{"a":-1E+400}]]}',
    "2^64": b'{"temperature":18446744073709551616}',
    "a number of 5,000 digits": b'{"temperature":' + b"9" * 5000 + b"}",
    "a lone high surrogate": b'{"temperature":"\\ud800"}',
    "a lone low surrogate in a list": b'{"temperature":["x\\uDFFF"]}',
    "surrogates in the wrong order": b'{"temperature":"\\udc00\\ud800"}',
    "duplicate keys": b'{"temperature":1,"temperature":1}',
    "duplicate keys, one escaped": b'{"temperature":1,"temperatur\\u0065":1}',
}
BROKEN = [
    b"", b"{", b"}", b"[]", b"1", b"null", b'"x"', b"{'a':1}", b'{"a":1,}', b'{"a":01}', b'{"a":1}{"b":2}', b"\xff",
    b'{"a":"\xff"}', b'\xef\xbb\xbf{"a":1}', b'{"a":"\n"}', b'{"a":1}\x00', b'{"a":"x', b'{"a":tru}', b"\x1f\x8b\x08",
    b'{"a":+1}', b'{"a":.5}', b'{"a":"\\x"}', "{}".encode("utf-16"), "{}".encode("utf-32-le"),
]  # fmt: skip


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_hostile(body: bytes):
    with pytest.raises(InvalidRequest) as told:
        parse(body)
    assert told.value.field == ("temperature" if b"temperature" in body and b"9" * 99 not in body else "body")
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("body", BROKEN, ids=repr)
def test_broken(body: bytes):
    with pytest.raises(InvalidRequest) as told:
        parse(body)
    assert told.value.field == "body"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":"[[[[{{{{\\"]]"}',
        b'{"a":0.1000000000000000055511151231257827}',
        b'{"a":1e-5,"b":-2E+3,"c":18446744073709551615}',
        b'{"a":' + b"[" * (DEPTH - 1) + b"]" * (DEPTH - 1) + b"}",
        b'{"a":"Not a Number, Infinity, true"}',
        json.dumps({"prompt": list(range(131_072))}).encode(),
    ],
    ids=lambda body: body[:30],
)
def test_sound(body: bytes):
    assert parse(body) == json.loads(body)


TEXT = st.text('ab1é你😀"\\/\n\u2028\x00{[,:', max_size=9)  # a whole alphabet costs seconds to draw from
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXT, PLAIN, max_size=5), st.booleans())
def test_whatever_json_writes_is_read_alike(value: dict, ascii_only: bool):
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]",:\\u0d8e1N-', max_size=60).map(str.encode))
def test_garbage_is_refused_or_read(body: bytes):
    try:
        value = parse(body)
    except InvalidRequest:
        return
    assert value == json.loads(body)
