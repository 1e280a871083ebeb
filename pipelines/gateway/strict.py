"""JSON, and nothing that merely resembles it.

Refuses what parsers disagree about (duplicate keys, NaN, Infinity, numbers beyond a double, lone surrogates) and
what makes them work hard (depth, a million members), before building a tree where that is possible.
Knows nothing of which fields there are.
"""

import json
import math
import re
from typing import Any

from cluster.errors import InvalidRequest, sent, shorten

DEPTH = 64  # a conversation needs 5; a JSON schema some 30
CONTAINERS = 20_000
MEMBERS = 400_000  # a prompt of token ids has one for each
STRINGS = 200_000

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)  # possessive: 4 MiB take 20 ms, not 300
BRACKET = re.compile(rb"[\[\]{}]")
ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
LONG_INTEGER = re.compile(rb"(?<![.\d])\d{20,}")  # beyond 64 bits; digits after a point are another matter


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises InvalidRequest, naming the field where one is at fault."""
    skeleton = outline(body)
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=distinct, parse_constant=_not_a_number)
    except UnicodeDecodeError as wrong:
        raise InvalidRequest("body", f"byte {wrong.start}", "send JSON in UTF-8") from None
    except json.JSONDecodeError as wrong:
        raise InvalidRequest("body", f"character {wrong.pos}", f"send valid JSON ({wrong.msg})") from None
    except ValueError:  # Python's own guard against numbers of thousands of digits
        raise InvalidRequest("body", "a number of thousands of digits", "send numbers of a usual size") from None
    if not isinstance(value, dict):
        raise InvalidRequest("body", sent(value), "send a JSON object")
    if suspicious(body, skeleton):
        inspect(value, "body")
    return value


def outline(body: bytes) -> bytes:
    """`body` without its strings, after refusing what is too deep or has too many members to be parsed."""
    if body.count(b'"') - body.count(b'\\"') > 2 * STRINGS:
        raise InvalidRequest("body", f"one of more than {STRINGS} strings", f"send at most {STRINGS}")
    skeleton = STRING.sub(b"", body)
    containers = skeleton.count(b"{") + skeleton.count(b"[")
    if containers > CONTAINERS:
        raise InvalidRequest("body", f"one of {containers} objects and arrays", f"send at most {CONTAINERS}")
    members = skeleton.count(b",")
    if members > MEMBERS:
        raise InvalidRequest("body", f"one of {members} members", f"send at most {MEMBERS}")
    if containers > DEPTH and deepest(skeleton) > DEPTH:
        raise InvalidRequest("body", f"one nested more than {DEPTH} deep", f"nest at most {DEPTH} deep")
    return skeleton


def deepest(skeleton: bytes) -> int:
    """How deep the brackets go."""
    depth = most = 0
    for bracket in BRACKET.findall(skeleton):
        depth += 1 if bracket in b"[{" else -1
        most = max(most, depth)
    return most


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ. Which of two equal keys counts is what parsers disagree about."""
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRequest(shorten(twice, 64), "the same key twice", "send it once")
    return made


def suspicious(body: bytes, skeleton: bytes) -> bool:
    """Whether the tree has to be walked for what a cheap look cannot place."""
    return bool(
        b"N" in skeleton
        or b"I" in skeleton
        or b"e" in skeleton.lower().replace(b"true", b"").replace(b"false", b"")
        or LONG_INTEGER.search(skeleton)
        or ESCAPED_SURROGATE.search(body)
    )


def inspect(value: Any, where: str) -> None:
    """Raises InvalidRequest naming the field that holds no finite number or a lone surrogate."""
    match value:
        case dict():
            for key, inner in value.items():
                name = shorten(key, 64) if where == "body" else where
                inspect(key, name)
                inspect(inner, name)
        case list():
            for inner in value:
                inspect(inner, where)
        case str() if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidRequest(where, "a lone surrogate", "send well-formed Unicode") from None
        case int() if abs(value) >= 2**64:
            raise InvalidRequest(where, "a number beyond 64 bits", "send a usual number")
        case float() if not math.isfinite(value):
            raise InvalidRequest(where, sent(value), "send a finite number")


def _not_a_number(name: str) -> float:
    return float(name.replace("Infinity", "inf"))
