"""What stands in a version's tree: files as they are, lists of pieces in place of large ones, and metadata.

Knows paths and bytes. Knows no commit and no store.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgpack

from actors.registry import pieces
from actors.registry.folder import FACTS
from actors.registry.pieces import SUFFIX, Pieces
from cluster.errors import InvalidRequest, ModelInvalid, sent, shorten

MOST_METADATA = 64 << 10  # bytes
MOST_KEY = 500  # characters, with the keys that it lies under: as many as the catalogue's tables hold
MOST_DEPTH = 32  # as a settings file
METRICS = "metrics"  # under which all values are numbers
KINDS = {int: "a number", float: "a number", bool: "a truth value"}  # of keys, as YAML reads them
RESERVED = frozenset(
    {
        "model",
        "version",
        "stage",
        "alias",
        "branch",
        "tag",
        "author",
        "at",
        "message",
        "parent",
        "size",
        "config",
        "card",
    }
)
Tree = Mapping[str, bytes]


def listed(tree: Tree) -> dict[str, Pieces]:
    """The large files of a tree, by their own names."""
    return {plain(name): pieces.parse(name, text) for name, text in tree.items() if name.endswith(SUFFIX)}


def plain(name: str) -> str:
    """What the file of a path in a tree is called in the folder."""
    return name.removesuffix(SUFFIX)


def sizes(tree: Tree) -> dict[str, int]:
    """Bytes of each file, by its own name."""
    small = {name: len(tree[name]) for name in tree if name != FACTS and not name.endswith(SUFFIX)}
    return small | {name: found.size for name, found in listed(tree).items()}


def facts(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as they stand in a tree. Raises InvalidRequest for what `check` refuses, and for too much."""
    check(metadata)
    try:
        found = {"metadata": dict(metadata)}
        text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        raise InvalidRequest("metadata", str(wrong), "use texts, numbers, lists and objects") from None
    if len(text) > MOST_METADATA:
        raise InvalidRequest("metadata", f"{len(text)} bytes", f"keep it below {MOST_METADATA} bytes")
    return text


def check(metadata: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for metadata that nobody could keep or search, naming the key."""
    groups, leaves = set[str](), set[str]()
    for count, (key, value, listed) in enumerate(_walk("", metadata, ())):
        if count > MOST_METADATA:
            raise InvalidRequest("metadata", f"more than {MOST_METADATA} values", "keep to what versions are found by")
        if len(key) > MOST_KEY:
            raise InvalidRequest("metadata", f"the key {shorten(key, 60)}", f"a key has at most {MOST_KEY} characters")
        if key.partition(".")[0] in RESERVED:
            raise InvalidRequest("metadata", key, "is what the registry itself says of a version; take another name")
        _check_value(key, value)
        if isinstance(value, Mapping):
            groups.add(key)
        elif not listed and not (isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value)):
            leaves.add(key)
        parts = key.split(".")
        groups.update(".".join(parts[:length]) for length in range(1, len(parts)))
    if both := sorted(leaves & groups):
        raise InvalidRequest(f"metadata {both[0]}", "a value and a group of values", "give one of them another name")


def _walk(key: str, value: Any, above: tuple[int, ...], *, listed: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """What lies in a value, each under its dotted key, elements of a list, which are `listed`, under the list's."""
    if id(value) in above:
        kind = "list" if isinstance(value, list) else "mapping"
        raise InvalidRequest(f"metadata {key}", f"a {kind} that holds itself", "write out what it is to hold")
    if len(above) > MOST_DEPTH:
        raise InvalidRequest(f"metadata {key}", "deep nesting", f"nest at most {MOST_DEPTH} levels")
    if above:
        yield key, value, listed
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(f"{key}.{_name(key, name)}" if key else _name(key, name), inner, (*above, id(value)))
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(key, inner, (*above, id(value)), listed=True)


def _name(above: str, name: Any) -> str:
    field = f"metadata {above}".rstrip()
    if name is None or (isinstance(name, str) and not name.strip()):
        raise InvalidRequest(field, "an empty key", "give it a name")
    if not isinstance(name, str):
        kind = KINDS.get(type(name), f"a {type(name).__name__}")
        said = str(name).lower() if isinstance(name, bool) else str(name)
        raise InvalidRequest(field, f"the key {said}, {kind},", f"write '{said}', in quotes")
    return name


def _check_value(key: str, value: Any) -> None:
    """What JSON does not have, such as a date of YAML, and metrics that are no numbers."""
    if not isinstance(value, str | int | float | list | Mapping) and value is not None:
        kind = type(value).__name__
        raise InvalidRequest(f"metadata {key}", f"{shorten(value)}, a {kind},", "write it as a text, in quotes")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"metadata {key}", value, "give a finite number")
    if key.partition(".")[0] == METRICS and not number and not isinstance(value, Mapping):
        raise InvalidRequest(f"metadata {key}", sent(value), "a metric is a finite number, such as 0.93")


def metadata(tree: Tree) -> dict[str, Any]:
    """`facts` again; none where the tree says none."""
    found: dict[str, Any] = json.loads(tree.get(FACTS, b'{"metadata": {}}'))["metadata"]
    return found


def manifest(tree: Tree) -> bytes:
    """All that a folder is made from, without a word of who made it when: equal folders have equal ones."""
    made: bytes = msgpack.packb(sorted((name, content) for name, content in tree.items() if name != FACTS))
    return made


def of_manifest(text: bytes) -> dict[str, bytes]:
    """`manifest` again, as a tree. Raises ModelInvalid."""
    try:
        found = {str(name): bytes(content) for name, content in msgpack.unpackb(text)}
    except (ValueError, TypeError) as wrong:
        raise ModelInvalid("the manifest", f"cannot be read ({wrong})", "push the version again") from None
    return found
