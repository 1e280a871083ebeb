"""What would take long to compile, told from a schema's or a grammar's text and refused before anybody begins.

The compiler has limits of its own, but what follows it does before it counts: members of an object against each other,
patterns of members against each other, and all ways in which patterns that one text must match may overlap, which
double with each. Knows JSON Schema's words. Knows nothing of requests and automata.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from cluster.errors import InvalidRequest

MEMBERS = 2000  # of one object; that many take 70 ms, ten thousand 2 s
OPTIONAL = 300  # one after the other in one object; from 248 to 254 on, with and without others, nothing can match them
MEMBER_PATTERNS = 64  # of a whole schema; 64 take 30 ms, 300 took 4.5 s
LEVELS = 500  # that lead on to one another by nesting and by reference; from 1,400 on a stack of 8 MB overflows
RULES = 500  # of a grammar, for the same reason: 3,000 that lead on to one another overflow it
MEETING = 8  # patterns that one text must match; 15 took 30 ms, and 60 no end
_SINGLE = frozenset({"items", "additionalProperties", "contains", "propertyNames"})  # words with a schema
_SEVERAL = frozenset({"items", "prefixItems", "properties"})  # words with schemas of different values
_ADDED = frozenset({"patternProperties", "anyOf", "oneOf"})  # words with schemas of which some is added to the rest

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ELSEWHERE = ("$defs", "definitions")  # what is only compiled where something refers to it

_RULE = re.compile(r"(?m)^[ \t]*[?!]?[A-Za-z_][\w.-]*[^:\n]*:")
_QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*|#[^\n]*')


def check_schema(schema: Any, field: str, containers: Iterable[Any]) -> None:
    """Raises InvalidRequest, naming `field`. `containers`: every object and list in `schema`, which is no deeper than
    recursion goes."""
    patterns = meeting = 0
    for value in containers:
        if not isinstance(value, Mapping):
            continue
        meeting += ("pattern" in value) + ("format" in value)
        members, named = value.get("properties"), value.get("patternProperties")
        if isinstance(members, Mapping):
            _check_members(members, value.get("required"), field)
        patterns += len(named) if isinstance(named, Mapping) else 0
        if patterns > MEMBER_PATTERNS:
            raise InvalidRequest(field, f"{patterns} patternProperties", f"give at most {MEMBER_PATTERNS} in all")
    _check_levels(schema, field)
    if meeting > MEETING:
        _check_meetings(schema, field)


def _check_levels(schema: Any, field: str) -> None:
    if (deepest := levels(schema)) > LEVELS:
        remedy = f"have at most {LEVELS} levels lead on to one another, by nesting and by $ref"
        raise InvalidRequest(field, f"a schema that leads {deepest} levels deep", remedy)


def levels(schema: Any) -> int:
    """How deep the compiler may have to go into `schema`: containers that lie in or refer to each other, without
    recursion.

    In which order it follows references is its own matter, so that those of a cycle count together (components by
    Tarjan, "Depth-first search and linear graph algorithms", 1972).
    """
    parts: dict[str, tuple[int, list[str]]] = {}
    waiting = [""]
    while waiting:
        name = waiting.pop()
        if name not in parts:
            parts[name] = _part(pointed(schema, name))
            waiting += parts[name][1]
    return _longest(parts)


def _part(value: Any) -> tuple[int, list[str]]:
    """How many levels lie in each other in a part of a schema, and what it refers to."""
    deepest, refers = 0, []
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if not isinstance(value, Mapping | list | tuple):
            continue
        deepest = max(deepest, depth)
        for word, inner in value.items() if isinstance(value, Mapping) else ((None, one) for one in value):
            if word in _REFERENCES and isinstance(inner, str):
                refers.append(fragment(inner))
            elif word not in _ELSEWHERE:
                waiting.append((inner, depth + 1))
    return deepest, refers


def _longest(parts: Mapping[str, tuple[int, list[str]]]) -> int:
    """The most levels on a way from part to part, where those of one component count together."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    below: dict[str, int] = {}  # of parts whose component is known: the levels from it on
    open_: list[str] = []
    walk = [("", iter(parts[""][1]))]
    while walk:
        name, left = walk[-1]
        if name not in order:
            order[name] = low[name] = len(order)
            open_.append(name)
        following = next(left, None)
        if following is None:
            walk.pop()
            if low[name] == order[name]:
                own = [open_.pop()]
                while own[-1] != name:
                    own.append(open_.pop())
                beyond = max((below[one] for each in own for one in parts[each][1] if one in below), default=0)
                whole = sum(parts[each][0] for each in own) + beyond
                below |= dict.fromkeys(own, whole)
            if walk:
                low[walk[-1][0]] = min(low[walk[-1][0]], low[name])
        elif following not in order:
            walk.append((following, iter(parts[following][1])))
        elif following not in below:
            low[name] = min(low[name], order[following])
    return below[""]


def _check_meetings(schema: Any, field: str) -> None:
    try:
        most = Meetings(schema).of(schema)
    except RecursionError:
        raise InvalidRequest(field, "a chain of references", "have fewer of them lead on to another") from None
    if most > MEETING:
        remedy = f"have at most {MEETING} patterns and formats meet, by allOf and $ref, in one place"
        raise InvalidRequest(field, f"a text that may have to match {most} patterns", remedy)


def _check_members(members: Mapping[str, Any], required: Any, field: str) -> None:
    needed = {name for name in required if isinstance(name, str)} if isinstance(required, list | tuple) else set()
    run = 0
    for name, value in members.items():
        run = 0 if name in needed else run + (value is not False)
        if run > OPTIONAL:
            raise InvalidRequest(
                field,
                f"an object with more than {OPTIONAL} optional properties in a row",
                "give fewer optional properties or require some of them",
            )
    if len(members) > MEMBERS:
        raise InvalidRequest(field, f"an object of {len(members)} properties", f"give an object at most {MEMBERS}")


def check_grammar(text: str, field: str) -> None:
    """Raises InvalidRequest where the terminals of a grammar meet, or are turned round, too often."""
    bare = _QUOTED.sub("", text)
    if (count := bare.count("&") + bare.count("~")) > MEETING:
        raise InvalidRequest(field, f"{count} times & or ~", f"use them at most {MEETING} times in all")
    if (count := len(_RULE.findall(bare))) > RULES:
        raise InvalidRequest(field, f"a grammar of {count} rules", f"give at most {RULES}")


class Meetings:
    """How many patterns may come together in one value of a schema, at the most."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[
            str, int
        ] = {}  # by reference; 0 while it is being found, as one that comes round adds nothing

    def of(self, schema: Any) -> int:
        """Those of what is joined by allOf and $ref add up; of alternatives and of different members the most count."""
        if not isinstance(schema, Mapping):
            return 0
        here = more = 0
        for word, value in schema.items():
            if word in ("pattern", "format"):
                here = max(here, 1)
            elif word in _SEVERAL and isinstance(value, Mapping if word == "properties" else list):
                here = max(here, self._most(value))
            elif word in _SINGLE:
                here = max(here, self.of(value))
            elif word in _ADDED:
                more += self._most(value)
            elif word == "allOf" and isinstance(value, list):
                more += sum(map(self.of, value))
            elif word == "$ref":
                more += self._referred(value)
        return here + more

    def _most(self, several: Any) -> int:
        values = several.values() if isinstance(several, Mapping) else several if isinstance(several, list) else ()
        return max(map(self.of, values), default=0)

    def _referred(self, reference: Any) -> int:
        if not isinstance(reference, str):
            return 0
        reference = fragment(reference)
        if reference not in self._known:
            self._known[reference] = 0
            self._known[reference] = self.of(pointed(self._root, reference))
        return self._known[reference]


def fragment(reference: str) -> str:
    """What a reference says of a place within its document, from the first slash on; whose document that is is not
    looked at, as a schema may name itself in several ways."""
    return unquote(reference.partition("#")[2])


def pointed(root: Any, reference: str) -> Any:
    """What the fragment of a reference, `/$defs/a`, points to, as RFC 6901 has it; None for nothing."""
    found = root
    for word in reference.split("/")[1:]:
        name = word.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
