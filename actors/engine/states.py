"""The states that the sequences of one form have been in, and what was found out about each: learnt once, used by all.

An automaton says neither which state it is in nor whether two are the same, and a token costs it microseconds. So
states have names: the text that leads there, shortened where what stood there cannot matter any more. Of a JSON schema
that are free strings and free numbers, the values of plain objects: whatever they are, the same may follow.
Knows texts and schemas. Knows nothing of automata, sequences and slots.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

NAME_BYTES = 512  # what comes later in a long answer is hardly ever met again
ROOM_BYTES = 2 << 20  # of one form: some 4,000 states, or the masks of 100 over a vocabulary of 128,000
STATE_BYTES, STEP_BYTES = 600, 100  # measured: two objects, an empty dict and a name; an entry of a dict

STRING: Literal["string"] = "string"
NUMBER: Literal["number"] = "number"
ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$defs", "$id"}

Bits = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Members:
    """An object of which each listed member has a value of a known kind."""

    kinds: Mapping[str, "Kind"]


@dataclass(frozen=True, slots=True)
class Items:
    """An array of values of one kind."""

    kind: "Kind"


Kind = Literal["string", "number"] | Members | Items | None


class Place(NamedTuple):
    """Where in a JSON text we are: in which objects and arrays, and what comes next."""

    outer: "Place | None"
    within: Kind
    is_object: bool
    key: bool  # whether a string would be a key
    next: Kind  # of the value to come


@dataclass(slots=True, eq=False)
class State:
    """One state: `steps` says where tokens lead, or False for one that does not fit."""

    closed: bytes  # its name, of what is complete
    open: bytes = b""  # and of what may go on: a string, a number, half a character
    place: Place | None = None  # None: names are whole texts
    ended: bool = False
    steps: "dict[int, State | Literal[False]]" = field(default_factory=dict)
    mask: Bits | None = None
    forced: bool = False


class States:
    """Those of one form. They are learnt once a second sequence has begun: to a form used once they are of no use."""

    def __init__(self, kind: Kind = None) -> None:
        place = None if kind is None else Place(None, None, False, False, kind)
        self.start = State(b"", place=place)
        self._known = {b"": self.start}
        self._room = ROOM_BYTES
        self._begun = self._told = 0

    def begin(self) -> State:
        """Where every sequence begins."""
        self._begun += 1
        return self.start

    def learn(self, state: State, token: int, spelled: bytes | None, *, fits: bool) -> State | None:
        """Remember whether `token` fits after `state`. Where it leads; None where that is not followed.

        `spelled` are its bytes, none for a sign that is no text; None for what ends a text.
        """
        if self._begun < 2 or not self._take(STEP_BYTES):
            return None if fits else state
        if not fits:
            state.steps[token] = False
            return state
        after = self._ended(state) if spelled is None else self._after(state, spelled)
        if after is not None:
            state.steps[token] = after
        return after

    def learn_mask(self, state: State, mask: Bits, *, forced: bool) -> None:
        """Remember what may follow `state`."""
        if self._begun >= 2 and self._take(mask.nbytes):
            state.mask, state.forced = mask, forced

    def grown(self) -> int:
        """The bytes learnt since it was asked last."""
        told, self._told = self._told, ROOM_BYTES - self._room
        return self._told - told

    def _take(self, size: int) -> bool:
        if self._room < size:
            return False
        self._room -= size
        return True

    def _ended(self, state: State) -> State | None:
        if state.ended:
            return state
        return State(b"", ended=True) if self._take(STATE_BYTES) else None

    def _after(self, state: State, spelled: bytes) -> State | None:
        if state.ended or not spelled:
            return None
        closed, still, place = named(state.closed, state.open, state.place, spelled)
        name = closed + still
        known = self._known.get(name)
        if known is not None or len(name) > NAME_BYTES or not self._take(STATE_BYTES):
            return known
        made = self._known[name] = State(closed, still, place)
        return made


def kind_of(spec: str) -> Kind:
    """What is known of the texts that keep to a spec; None for nothing."""
    how, _, body = spec.partition(":")
    return _kind(json.loads(body)) if how in ("json", "compact") else None


def _kind(schema: Any) -> Kind:
    """Of a schema without alternatives: each text is read in one way. None for all others."""
    if not isinstance(schema, dict):
        return None
    match schema.get("type"), set(schema) - ANNOTATIONS - {"type"}:
        case "string", said if not said:
            return STRING
        case (("integer" | "number"), said) if not said:
            return NUMBER
        case "array", said if said <= {"items", "minItems", "maxItems"}:
            return Items(_kind(schema.get("items")))
        case "object", said if said <= {"properties", "required", "additionalProperties"}:
            if isinstance(schema.get("additionalProperties", True), bool):
                return Members({name: _kind(member) for name, member in schema.get("properties", {}).items()})
    return None


_PIECES = re.compile(
    r'(?P<blank>[ \n\t\r]+)|(?P<sign>[{}\[\],:])|(?P<string>"(?:[^"\\]|\\.)*(?P<shut>")?\\?)|[^ \n\t\r{}\[\],:"]+',
    re.DOTALL,
)
_WHOLE = re.compile(r"[1-9][0-9]*")


def named(closed: bytes, still: bytes, place: Place | None, more: bytes) -> tuple[bytes, bytes, Place | None]:
    """The name of the text that goes on with `more` from where `closed` and `still` are the name, and its place.

    >>> start = Place(None, None, False, False, Members({"a": "string"}))
    >>> named(b"", b"", start, b'{"a": "Anna", "b')[:2]
    (b'{"a": "", ', b'"b')
    """
    if place is None:
        return closed + more, b"", None
    try:
        text = (still + more).decode()
    except UnicodeDecodeError:
        return closed, still + more, place
    whole, last_open = [], False
    for piece in _PIECES.finditer(text):
        kind, word = piece.lastgroup, piece[0]
        if kind == "sign":
            place = _moved(place, word)
        elif kind == "string":
            last_open = piece["shut"] is None
            word, place = _string(place, word, shut=not last_open)
        elif kind is None:
            last_open = True
            word = "1" if place.next == NUMBER and _WHOLE.fullmatch(word) else word
        if kind in ("sign", "blank"):
            last_open = False
        whole.append(word)
    rest = whole.pop().encode() if last_open else b""
    return closed + "".join(whole).encode(), rest, place


def _string(place: Place, piece: str, *, shut: bool) -> tuple[str, Place]:
    """What a string is called, and the place behind it. One with an escape is left alone: it may be half of one."""
    if place.key:
        return piece, place._replace(next=_member(place.within, piece)) if shut else place
    if place.next == STRING and "\\" not in piece:
        return '""' if shut else '"', place
    return piece, place


def _member(within: Kind, key: str) -> Kind:
    return within.kinds.get(key[1:-1]) if isinstance(within, Members) and "\\" not in key else None


def _moved(place: Place, sign: str) -> Place:
    """Behind a sign between values."""
    match sign:
        case "{":
            return Place(place, place.next if isinstance(place.next, Members) else None, True, True, None)
        case "[":
            return Place(place, place.next, False, False, place.next.kind if isinstance(place.next, Items) else None)
        case "}" | "]":
            return place.outer or place
    return place._replace(key=sign == ",") if place.is_object else place
