"""What became of one version in another: files and their sizes, lines of text, tensors and by how much they changed.

Knows trees, and content where tensors or tokenizers changed. Knows no names of versions.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from actors.registry import merging, pieces, vocabulary
from actors.registry.pieces import SUFFIX, Pieces, Progress, quietly
from actors.registry.tree import Tree, listed, metadata, plain
from cluster.storage import Blobs


@dataclass(frozen=True, slots=True)
class Difference:
    """From one version to another: names of files, lines of `diff -u` of those that are text, tensors by file."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int]]  # of files that changed, before and after
    lines: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]  # added, removed, changed
    norms: Mapping[str, Mapping[str, float]]  # by file, of all tensors that both have in one shape, in their order
    not_finite: Mapping[
        str, Mapping[str, tuple[int, int]]
    ]  # those without: of how many values no difference can be told
    entries: Mapping[str, Mapping[str, vocabulary.Counts]]  # of tokenizers that changed: added, removed, changed
    named: Mapping[str, Mapping[str, vocabulary.Names]]  # of those the first
    metadata: Mapping[
        str, tuple[Any, Any]
    ]  # before and after, of keys with dots that changed; None where there is none


def between(old: Tree, new: Tree, blobs: Blobs, progress: Progress = quietly) -> Difference:
    """From `old` to `new`. Reads the tensors that changed: the norm of the change over that of what they were."""
    there, before = ({plain(name): name for name in tree} for tree in (new, old))  # one that grew large is in pieces
    changed = [name for name in there if name in before and old[before[name]] != new[there[name]]]
    now, known = listed(new), listed(old)
    empty = Pieces(0, ())
    tensors = {
        name: (tuple(added), tuple(gone), tuple(others))
        for name in sorted({*now, *known})
        for added, gone, others in [pieces.changed(known.get(name, empty).tensors, now.get(name, empty).tensors)]
        if added or gone or others
    }
    entries = {name: found for name in changed if (found := _entries(name, old, new, blobs)) is not None}
    both = [name for name in tensors if name in known and name in now]
    changes = {name: _changes(known[name], now[name], blobs, progress) for name in both}
    return Difference(
        tuple(name for name in there if name not in before),
        tuple(name for name in before if name not in there),
        tuple(changed),
        {name: (_size(name, old, known), _size(name, new, now)) for name in changed},
        {name: _unified(name, old[name], new[name]) for name in changed if name in old and name in new},
        tensors,
        {name: {each: norm for each, norm in of.items() if isinstance(norm, float)} for name, of in changes.items()},
        {name: odd for name, of in changes.items() if (odd := {e: n for e, n in of.items() if isinstance(n, tuple)})},
        {name: {part: counts for part, (counts, _) in of.items()} for name, of in entries.items()},
        {name: {part: names for part, (_, names) in of.items()} for name, of in entries.items()},
        _metadata(metadata(old), metadata(new)),
    )


def _metadata(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    was, now = dict(_flat(old)), dict(_flat(new))
    return {key: (was.get(key), now.get(key)) for key in sorted({*was, *now}) if was.get(key) != now.get(key)}


def _flat(metadata: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in metadata.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _size(name: str, tree: Tree, large: Mapping[str, Pieces]) -> int:
    return large[name].size if name in large else len(tree[name])


def _entries(
    name: str, old: Tree, new: Tree, blobs: Blobs
) -> dict[str, tuple[vocabulary.Counts, vocabulary.Names]] | None:
    if name.rpartition("/")[2] != vocabulary.NAME:
        return None
    texts = []
    for tree in (old, new):
        large = pieces.parse(name, tree[name + SUFFIX]) if name not in tree else None
        if large is not None and large.size > vocabulary.MOST:
            return None
        texts.append(b"".join(map(blobs.get, large.digests())) if large is not None else tree[name])
    return vocabulary.compared(*texts)


def _changes(before: Pieces, after: Pieces, blobs: Blobs, progress: Progress) -> dict[str, float | tuple[int, int]]:
    """As `merging.changed_by` has them."""
    old = {tensor.name: tensor for tensor in before.tensors}
    found: dict[str, float | tuple[int, int]] = {}
    for tensor in after.tensors:
        was = old.get(tensor.name)
        if was == tensor:
            found[tensor.name] = 0.0
        elif was is not None and (was.dtype, was.shape) == (tensor.dtype, tensor.shape):
            whole = [b"".join(map(blobs.get, each.pieces)) for each in (was, tensor)]
            found[tensor.name] = merging.changed_by(whole[0], whole[1], tensor.dtype)
            progress(tensor.size)
    return found


def _unified(name: str, before: bytes, after: bytes) -> tuple[str, ...]:
    try:
        old, new = before.decode("utf-8").splitlines(), after.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return ()
    return tuple(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", lineterm=""))
