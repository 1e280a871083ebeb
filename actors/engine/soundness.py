"""What of a JSON schema its compiler would let through though it does not validate: said in other words, or refused.

Knows schemas, and what llguidance 1.x makes of them. Knows nothing of automata.
"""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cluster.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

TINY = 1e-9  # what is more than 0 is at least this
LETTERS = 'nrtbf\\"'  # of escapes that no other text stands for: with \u a key could be spelled so that nobody knows it
_CONTROL = re.compile(r"\\u00[01][0-9a-fA-F]")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems", "items")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


def sound(body: str) -> str:
    """The schema `body`, such that what matches it validates. Raises InvalidRequest for what cannot be said so.

    A boolean becomes what means the same. All others that are no objects stay as they are.
    """
    schema = json.loads(body)
    if schema is False:
        raise InvalidRequest("json", "false", "nothing validates against it: give a schema that something matches")
    if schema is True:
        return "{}"
    changed = False
    for each in _parts(schema):
        _refuse_repeats(each)
        changed |= _bound(each)
    return json.dumps(schema) if changed else body


def escapes(body: str) -> "JsonCompileOptions":
    """The compiler's option for what may follow a backslash; none where the schema itself needs more."""
    return {"json_allowed_escapes": LETTERS} if '"properties"' in body and not _CONTROL.search(body) else {}


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """All schemas in it that are objects, itself first."""
    left = [schema]
    while left:
        each = left.pop()
        if not isinstance(each, dict):
            continue
        yield each
        for name in _MAPS:
            if isinstance(each.get(name), dict):
                left += each[name].values()
        for name in _LISTS:
            if isinstance(each.get(name), list):
                left += each[name]
        left += [each.get(name) for name in _SINGLE]


def _refuse_repeats(schema: dict[str, Any]) -> None:
    """A key that comes twice is counted twice."""
    least, free = schema.get("minProperties"), schema.get("additionalProperties") is not False
    if isinstance(least, int | float) and least > 1 and (free or schema.get("patternProperties")):
        given = f"minProperties of {least} for members of any name"
        raise InvalidRequest(
            "json", given, f"{given} would count one twice that comes twice: name them in `properties`"
        )


def _bound(schema: dict[str, Any]) -> bool:
    """A bound that excludes 0 lets 0 through where there is one on the other side, too."""
    whole = schema.get("type") == "integer"
    changed = False
    for exclusive, inclusive, other, sign in (
        ("exclusiveMinimum", "minimum", ("maximum", "exclusiveMaximum"), 1),
        ("exclusiveMaximum", "maximum", ("minimum", "exclusiveMinimum"), -1),
    ):
        bound = schema.get(exclusive)
        if isinstance(bound, bool) or not isinstance(bound, int | float) or bound != 0:
            continue
        far = [abs(each) for name in other if isinstance(each := schema.get(name), int | float) and each * sign > 0]
        least = 1 if whole else min(TINY, *(each / 1000 for each in far)) if far else TINY
        given = schema.get(inclusive)
        near = given * sign if isinstance(given, int | float) and not isinstance(given, bool) else 0
        schema[inclusive] = sign * max(near, least)
        del schema[exclusive]
        changed = True
    return changed
