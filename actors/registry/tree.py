"""What stands in a version's tree: files as they are, lists of pieces in place of large ones, and metadata.

Knows paths and bytes. Knows no commit and no store.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgpack

from actors.registry import pieces
from actors.registry.folder import FACTS
from actors.registry.pieces import SUFFIX, Pieces
from cluster.errors import InvalidRequest, ModelInvalid, shorten

MOST_METADATA = 64 << 10  # bytes
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
    """Metadata as they stand in a tree. Raises InvalidRequest for what is no plain value, or too much."""
    for key in metadata:
        if key.partition(".")[0] in RESERVED:
            raise InvalidRequest("metadata", key, "is what the registry itself says of a version; take another name")
    for key, value in metadata.items():
        _check_plain(key, value)
    try:
        found = {"metadata": dict(metadata)}
        text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        raise InvalidRequest("metadata", str(wrong), "use texts, numbers, lists and objects") from None
    if len(text) > MOST_METADATA:
        raise InvalidRequest("metadata", f"{len(text)} bytes", f"keep it below {MOST_METADATA} bytes")
    return text


def _check_plain(key: str, value: Any) -> None:
    """Raises InvalidRequest naming the key whose value JSON does not have, such as a date of YAML."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_plain(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(key, inner)
    elif not (value is None or isinstance(value, str | int | float)):
        kind = type(value).__name__
        raise InvalidRequest(f"metadata {key}", f"{shorten(value)}, a {kind},", "write it as a text, in quotes")


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
