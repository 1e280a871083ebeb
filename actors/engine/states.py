"""The states that the sequences of one form have been in, and what was found out about each: learnt once, used by all.

An automaton says neither which state it is in nor whether two are the same, and a token costs it microseconds. So
states have names: the text that leads there, less what cannot matter any more. Of a JSON schema that says what an
object's members or an array's items are, and nothing that ties one to another, that is what each of them was once it is
complete, the characters of a string that is free in them, and blanks between signs.
Knows texts and schemas. Knows nothing of automata, sequences and slots.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from actors.engine.mask import Mask

NAME_BYTES = 512  # what comes later in a long answer is hardly ever met again
ROOM_BYTES = 2 << 20  # of one form: some 4,000 states, or the masks of 100 over a vocabulary of 128,000
STATE_BYTES, STEP_BYTES = 600, 100  # measured: two objects, an empty dict and a name; an entry of a dict
MASK_BYTES = 200  # beside its bits

STRING: Literal["string"] = "string"
SIZED: Literal["sized"] = "sized"  # a string of which only the length is bounded
NUMBER: Literal["number"] = "number"
ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$defs", "$id"}


@dataclass(frozen=True, slots=True)
class Members:
    """An object whose members do not depend on each other, of which some are of a known kind."""

    kinds: Mapping[str, "Kind"]


@dataclass(frozen=True, slots=True)
class Items:
    """An array whose items do not depend on each other. `counted`: it matters how many there are, beyond the first."""

    kind: "Kind"
    counted: bool


Kind = Literal["string", "sized", "number"] | Members | Items | None


class Place(NamedTuple):
    """Where in a JSON text we are: in which objects and arrays, and what comes next."""

    outer: "Place | None"
    within: Kind
    is_object: bool
    key: bool  # whether a string would be a key
    next: Kind  # of the value to come
    begin: int = 0  # in the name, of the innermost object or array
    items: int = 1  # of the array that have begun

    @property
    def forgets(self) -> bool:
        """Whether a value here does not matter once it is complete."""
        return isinstance(self.within, Members | Items)


@dataclass(slots=True, eq=False)
class State:
    """One state: `steps` says where tokens lead, or False for one that does not fit."""

    closed: bytes  # its name, of what is complete
    open: bytes = b""  # and of what may go on: a string, a number, half a character
    place: Place | None = None  # None: names are whole texts
    ended: bool = False
    steps: "dict[int, State | Literal[False]]" = field(default_factory=dict)
    mask: Mask | None = None


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

    def learn_mask(self, state: State, mask: Mask) -> None:
        """Remember what may follow `state`."""
        if self._begun >= 2 and self._take(mask.bits.nbytes + MASK_BYTES):
            state.mask = mask

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
        case "string", said if said <= {"minLength", "maxLength"}:
            return SIZED if said else STRING
        case (("integer" | "number"), said) if not said:
            return NUMBER
        case "array", said if said <= {"items", "minItems", "maxItems"} and not isinstance(schema.get("items"), list):
            counted = schema.get("minItems", 0) not in (0, 1) or "maxItems" in said
            return Items(_kind(schema.get("items")), counted)
        case "object", said if said <= {"properties", "required", "additionalProperties"}:
            if isinstance(schema.get("additionalProperties", True), bool):
                return Members({name: _kind(member) for name, member in schema.get("properties", {}).items()})
    return None


_PIECES = re.compile(
    r'(?P<blank>[ \n\t\r]+)|(?P<sign>[{}\[\],:])|(?P<string>"(?:[^"\\]|\\.)*(?P<shut>")?\\?)|[^ \n\t\r{}\[\],:"]+',
    re.DOTALL,
)
_WHOLE = re.compile(r"[1-9][0-9]*")
_DONE = b"#"  # any value that is complete: no text has this sign there


def named(closed: bytes, still: bytes, place: Place | None, more: bytes) -> tuple[bytes, bytes, Place | None]:
    """The name of the text that goes on with `more` from where `closed` and `still` are the name, and its place.

    >>> start = Place(None, None, False, False, Members({"a": "string", "b": Items("number", False)}))
    >>> named(b"", b"", start, b'{"a": "Anna", "b": [1, 20, 3')[:2]
    (b'{"a":#,"b":[1,', b'1')
    """
    if place is None:
        return closed + more, b"", None
    try:
        text = (still + more).decode()
    except UnicodeDecodeError:
        return closed, still + more, place
    name, rest = bytearray(closed), ""
    for piece in _PIECES.finditer(text):
        kind, word, last = piece.lastgroup, piece[0], piece.end() == len(text)
        if kind == "blank":  # forgotten once something follows
            rest = word if last else ""
        elif kind == "sign":
            place = _moved(place, word, name)
        elif kind is None:  # a number or a word may go on
            if last:
                rest = "1" if place.next == NUMBER and _WHOLE.fullmatch(word) else word
            else:
                name += _DONE if place.forgets else word.encode()
        elif piece["shut"] is None:
            rest = _open(place, word)
        elif place.key:
            name += word.encode()
            place = place._replace(next=_member(place.within, word))
        else:
            name += _DONE if place.forgets else word.encode()
    return bytes(name), rest.encode(), place


def _open(place: Place, piece: str) -> str:
    """What an unfinished string is called. One with an escape is left alone: it may be half of one."""
    if place.key or "\\" in piece:
        return piece
    if place.next == SIZED:
        return '"' + "x" * (len(piece) - 1)
    return '"' if place.next == STRING else piece


def _member(within: Kind, key: str) -> Kind:
    return within.kinds.get(key[1:-1]) if isinstance(within, Members) and "\\" not in key else None


def _moved(place: Place, sign: str, name: bytearray) -> Place:
    """Behind a sign between values, whose name that adds to or makes shorter."""
    if sign in "}]" and place.outer is not None and place.outer.forgets:
        name[place.begin :] = _DONE
        return place.outer
    if sign == "," and isinstance(place.within, Items):
        items = place.items + 1 if place.within.counted else place.items
        name[place.begin :] = b"[%d," % items
        return place._replace(items=items)
    begin = len(name)
    name += sign.encode()
    match sign:
        case "{":
            return Place(place, place.next if isinstance(place.next, Members) else None, True, True, None, begin)
        case "[":
            within = place.next if isinstance(place.next, Items) else None
            return Place(place, within, False, False, within.kind if within is not None else None, begin)
        case "}" | "]":
            return place.outer or place
    return place._replace(key=sign == ",") if place.is_object else place
