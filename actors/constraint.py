"""What an answer must look like, as a request says it and as it travels: one text, `kind:body`.

Owns the shapes that vLLM users know and the bounds on what may be asked. Knows no tokens and no automata: whether a
schema or a pattern can be kept to is for `grammar` to say.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from actors import burden
from cluster.errors import InvalidRequest, sent, shorten

SCHEMA_BYTES = 128 * 1024  # the OpenAI API takes 120,000 characters
SCHEMA_DEPTH = 64
REGEX_BYTES = 4 * 1024
GRAMMAR_BYTES = 32 * 1024
CHOICES = 1000
CHOICES_BYTES = 64 * 1024
MULTIPLE = 5000  # an automaton that knows remainders has a state for each; ending zeros cost none
SPEC_BYTES = 1024 * 1024  # the tools of one request together
KINDS = ("json", "compact", "regex", "choice", "grammar", "calls")


@dataclass(frozen=True, slots=True)
class StructuredOutputsParams:
    """vLLM's shape: one of `json` (a schema, text or object), `json_object`, `regex`, `choice`, `grammar` (Lark, GBNF).

    `disable_any_whitespace` leaves none between the elements of JSON. `spec()` raises InvalidRequest.
    """

    json: str | Mapping[str, Any] | bool | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False

    def spec(self, field: str = "structured_outputs") -> str | None:
        """The text that travels; None where `json_object` is false and nothing else is asked."""
        kinds = ("json", "regex", "choice", "grammar")
        asked = [name for name in kinds if getattr(self, name) is not None] + ["json_object"] * bool(self.json_object)
        if not asked and self.json_object is not None:
            return None
        if not asked:
            raise InvalidRequest(field, "what asks for nothing", f"give one of {', '.join(kinds)} and json_object")
        if len(asked) > 1:
            raise InvalidRequest(field, " and ".join(asked), "ask for one of them")
        kind = asked[0]
        return spec_of(kind, getattr(self, kind), f"{field}.{kind}", compact=self.disable_any_whitespace)


def spec_of(kind: str, value: Any, field: str, *, compact: bool = False) -> str:
    """The spec of one of the shape's fields, given in the request's `field`. Raises InvalidRequest."""
    how = "compact" if compact else "json"
    match kind:
        case "json":
            return f"{how}:{schema_text(value, field)}"
        case "json_object":
            return f'{how}:{{"type":"object"}}'
        case "choice":
            return f"choice:{choices_text(value, field)}"
        case "regex":
            return f"regex:{bounded(value, field, REGEX_BYTES)}"
        case _:
            return f"grammar:{grammar_text(value, field)}"


def structured(value: Any, field: str = "structured_outputs") -> str | None:
    """The spec of what a caller gives: a spec, the shape above or its fields as an object. Raises InvalidRequest."""
    if isinstance(value, str):
        if value.partition(":")[0] not in KINDS or len(value) > SPEC_BYTES:
            raise InvalidRequest(field, sent(value), f"it is StructuredOutputsParams(...) or an object of {names()}")
        return value
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in NAMES and value[name] is not None]:
            raise InvalidRequest(f"{field}.{shorten(unknown[0], 64)}", "this unknown field", f"there are {names()}")
        value = StructuredOutputsParams(**{name: given for name, given in value.items() if name in NAMES})
    if value is None:
        return None
    if not isinstance(value, StructuredOutputsParams):
        raise InvalidRequest(field, sent(value), f"it is StructuredOutputsParams(...) or an object of {names()}")
    for name in ("json_object", "disable_any_whitespace"):
        if not isinstance(getattr(value, name), bool | None):
            raise InvalidRequest(f"{field}.{name}", sent(getattr(value, name)), "it is true or false")
    return value.spec(field)


NAMES = tuple(one.name for one in fields(StructuredOutputsParams))


def names() -> str:
    """The fields, for people."""
    return ", ".join(NAMES)


def schema_text(schema: Any, field: str) -> str:
    """A JSON schema as text: within bounds, of plain JSON. Raises InvalidRequest."""
    if isinstance(schema, str):
        bounded(schema, field, SCHEMA_BYTES)
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError):
            raise InvalidRequest(field, sent(schema), "it is a JSON schema, as text or as an object") from None
    if not isinstance(schema, Mapping | bool):
        raise InvalidRequest(field, sent(schema), "a JSON schema is an object")
    check_schema(schema, field)
    text = json_text(schema, field)
    return bounded(text, field, SCHEMA_BYTES)


def json_text(value: Any, field: str) -> str:
    """Compact JSON. Raises InvalidRequest for what JSON cannot hold."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest(field, "what JSON cannot hold", "send plain JSON data") from None
    return text


def check_schema(schema: Any, field: str) -> None:
    """Raises InvalidRequest for a schema that is too deep, sets the compiler's own options, counts too far or costs
    too much."""
    multiple, containers = 1, []
    for value, depth in walked(schema):
        containers.append(value)
        if depth > SCHEMA_DEPTH:
            raise InvalidRequest(field, f"a schema more than {SCHEMA_DEPTH} deep", f"nest at most {SCHEMA_DEPTH} deep")
        if not isinstance(value, Mapping):
            continue
        if "x-guidance" in value:
            raise InvalidRequest(field, "x-guidance", "leave it out: it is no part of JSON Schema")
        step = value.get("multipleOf")
        if isinstance(step, int | float) and not isinstance(step, bool):
            multiple = math.lcm(multiple, digits(step))
            if multiple > MULTIPLE:
                raise InvalidRequest(field, f"multipleOf {step}", f"all of them together divide some n <= {MULTIPLE}")
    burden.check_schema(schema, field, containers)


def walked(schema: Any) -> Iterator[tuple[Any, int]]:
    """Every container in `schema` with its depth, without recursion."""
    waiting = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if depth > SCHEMA_DEPTH:
            return
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        waiting += [(one, depth + 1) for one in inner if isinstance(one, Mapping | list | tuple)]


def digits(number: float) -> int:
    """A number's digits without leading or ending zeros and the point; 1 for what is no positive number."""
    if not 0 < number < 2**63:  # NaN and its kin are refused as no JSON
        return 1 if not number >= 2**63 else MULTIPLE + 1
    return int("".join(map(str, Decimal(str(number)).normalize().as_tuple().digits)))


def bounded(text: Any, field: str, most: int) -> str:
    """A text of at most `most` bytes. Raises InvalidRequest."""
    if not isinstance(text, str) or not text:
        raise InvalidRequest(field, sent(text), "it is a text that is not empty")
    if len(text) > most or len(text.encode(errors="replace")) > most:
        raise InvalidRequest(field, f"a text of {len(text)} characters", f"send at most {most} bytes")
    return text


def choices_text(choices: Any, field: str) -> str:
    """The choices as a JSON list. Raises InvalidRequest."""
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise InvalidRequest(field, sent(choices), "give a list of at least one non-empty text")
    if len(choices) > CHOICES:
        raise InvalidRequest(field, f"a list of {len(choices)}", f"give at most {CHOICES}")
    if not all(isinstance(choice, str) and choice for choice in choices):
        wrong = next(choice for choice in choices if not isinstance(choice, str) or not choice)
        raise InvalidRequest(field, f"the choice {sent(wrong)}", "give at least one non-empty text, and nothing else")
    return bounded(json_text(list(choices), field), field, CHOICES_BYTES)


DIRECTIVES = ("%json", "%lark", "%regex", "%llguidance", "%grammar")  # schemas have a field, and bounds, of their own


def grammar_text(grammar: Any, field: str) -> str:
    """A grammar within bounds. Raises InvalidRequest."""
    text = bounded(grammar, field, GRAMMAR_BYTES)
    squeezed = text.replace(" ", "").replace("\t", "")
    if found := next((name for name in DIRECTIVES if name in squeezed), None):
        raise InvalidRequest(field, found, "a grammar holds rules alone: send a schema as json")
    burden.check_grammar(text, field)
    return text
