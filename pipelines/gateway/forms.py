"""What an answer must look like, in the fields of OpenAI's API and of vLLM's.

Knows the fields. What the text that travels means is `actors.constraint`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.constraint import NAMES, spec_of, structured
from cluster.errors import InvalidRequest, sent, shorten
from pipelines.gateway.fields import FORMS, nearest

GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice", "guided_grammar": "grammar"}
JSON_SCHEMA = frozenset({"name", "description", "schema", "strict"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A constraint and the field that asked for it."""

    spec: str
    field: str


def asked(fields: Mapping[str, Any]) -> Asked | None:
    """The constraint that a body asks for. Raises InvalidRequest naming the field."""
    given = [name for name in sorted(FORMS) if name in fields]
    found = [one for one in (_asked(name, fields[name]) for name in given) if one is not None]
    if len(found) > 1:
        raise InvalidRequest(found[1].field, "a second form of answer", f"{found[0].field} asks for one already")
    return found[0] if found else None


def _asked(name: str, value: Any) -> Asked | None:
    if name == "response_format":
        return response_format(value)
    if name in GUIDED:
        return Asked(spec_of(GUIDED[name], value, name), name)
    if not isinstance(value, dict):
        raise InvalidRequest(name, sent(value), f"it is an object of {', '.join(NAMES)}")
    spec = structured(value, name)
    kind = next((one for one in NAMES if value.get(one) is not None), "")
    return Asked(spec, f"{name}.{kind}") if spec else None


def response_format(value: Any) -> Asked | None:
    """OpenAI's field: text, json_object or json_schema. A schema is kept to, `strict` or not."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequest("response_format", sent(value), "its type is text, json_object or json_schema")
    if unknown := sorted(value.keys() - {"type"} - ({"json_schema"} if kind == "json_schema" else set())):
        raise _unknown("response_format", unknown[0], frozenset({"type", "json_schema"}))
    if kind == "text":
        return None
    if kind == "json_object":
        return Asked(spec_of("json_object", True, "response_format"), "response_format")
    return json_schema(value.get("json_schema"), "response_format.json_schema")


def json_schema(value: Any, field: str) -> Asked:
    """`{"name": ..., "schema": {...}, "strict": ...}`."""
    if not isinstance(value, dict):
        raise InvalidRequest(field, sent(value), "it is an object with name and schema")
    if unknown := sorted(value.keys() - JSON_SCHEMA):
        raise _unknown(field, unknown[0], JSON_SCHEMA)
    if not isinstance(value.get("name"), str) or not 0 < len(value["name"]) <= 64:
        raise InvalidRequest(f"{field}.name", sent(value.get("name")), "it is a text of 1 to 64 characters")
    if not isinstance(value.get("strict"), bool | None):
        raise InvalidRequest(f"{field}.strict", sent(value["strict"]), "it is true or false")
    where = f"{field}.schema"
    if not isinstance(value.get("schema"), dict):
        raise InvalidRequest(where, sent(value.get("schema")), "it is a JSON schema, an object")
    return Asked(spec_of("json", value["schema"], where), where)


def _unknown(field: str, name: str, names: frozenset[str]) -> InvalidRequest:
    return InvalidRequest(f"{field}.{shorten(name, 64)}", "this unknown field", nearest(name, names))
