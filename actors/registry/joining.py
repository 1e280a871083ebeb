"""Trees of two versions become one's: file by file, and of weights tensor by tensor.

Decides on trees alone, without a byte of a weight; what it decided is written by `Plan.write`. Knows no refs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from actors.registry import adapter, merging, pieces, weights
from actors.registry.folder import FACTS, twins
from actors.registry.merging import FLOATS, Change, Strategy
from actors.registry.pieces import SUFFIX, Pieces, Progress, Tensor
from actors.registry.threeway import three_way
from actors.registry.tree import Tree, listed, metadata, plain
from actors.registry.vetting import CONFIG, INDEX, WEIGHTS
from cluster.errors import ModelInvalid
from cluster.storage import Blobs

SHOWN = 3  # names of tensors in a line
_SAME = ("model_type", "architectures", "vocab_size", "hidden_size", "num_hidden_layers")
Files = dict[str, tuple[str, bytes]]  # by their own names: the path in the tree, and what stands there


@dataclass(frozen=True, slots=True)
class Plan:
    """What a merge comes to. `clashes`: what nobody has decided, a line each; with any, it is not to be written.

    `mixed`: weight files with tensors of both sides, after the files whose head each may have. `computed`: weight files
    in which the tensors `changed` become what `change`, given the store, makes of them.
    """

    files: Mapping[str, bytes]
    clashes: tuple[str, ...] = ()
    mixed: Mapping[str, tuple[tuple[Pieces, ...], Mapping[str, Tensor]]] = field(default_factory=dict)
    computed: Mapping[str, Pieces] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    change: Callable[[Blobs], Change] | None = None

    def write(self, blobs: Blobs, progress: Progress) -> tuple[dict[str, bytes], int]:
        """The tree, with all that it names in the store, and how many of its bytes are new."""
        content, stored = dict(self.files), 0
        for path, text in self.files.items():
            progress(pieces.parse(path, text).size if path.endswith(SUFFIX) else len(text))
        for name, (heads, tensors) in self.mixed.items():
            made, new = weights.mixed(heads, tensors, blobs, progress)
            content[name + SUFFIX] = made.text()
            stored += new
        change = self.change(blobs) if self.change else None
        for name, file in self.computed.items():
            assert change is not None
            made, new = weights.computed(file, self.changed, change, blobs, progress)
            content[name + SUFFIX] = made.text()
            stored += new
        return content, stored


def joined(bases: Sequence[Tree], ours: Tree, theirs: Tree, strategy: Strategy, what: str) -> Plan:
    """Of two versions, by any strategy but `lora`. `bases`: the latest that both come from; `what`: the name of theirs.

    Raises ModelInvalid for versions that no strategy can make one of.
    """
    if strategy.name in ("linear", "task"):
        return _blended(bases, ours, theirs, strategy, what)
    before, mine, other = [_files(base) for base in bases], _files(ours), _files(theirs)
    taken = {"ours": mine, "theirs": other}.get(strategy.name)
    if taken is None:
        _check_architectures(before, mine, other, what)
    elif _both_changed(before, mine, other) and _unlike(mine, other, what):
        mine = other = taken  # a tokenizer, say, belongs to its weights
    files, both = three_way(before, mine, other)
    clashes, mixed, indices = [], {}, []
    for name in both:
        if _is_weights(name) and name in mine and name in other:
            sides = _piece_lists([*before, mine, other], name)
            mixed[name], clash = _mixed(sides[:-2], sides[-2], sides[-1], strategy, f"{what} {name}")
            clashes += [f"{clash} of {name}, which both changed"] if clash else []
        elif name.endswith(INDEX) and name in mine and name in other:
            indices.append(name)
        elif taken is None:
            clashes.append(_clash(name, mine, other))
        elif name in taken:
            files[name] = taken[name]
    there = {name: file.tensors for name, file in _weights(files).items()}
    there |= {name: tuple(tensors.values()) for name, (_, tensors) in mixed.items()}
    for name in indices:
        files[name] = (name, _index(name, mine[name][1], other[name][1], there))
    _check_names([*files, *mixed])
    _check_twice(there, mine, other, what)
    return Plan(dict(files.values()), tuple(clashes), mixed)


def said(bases: Sequence[Tree], ours: Tree, theirs: Tree, strategy: Strategy) -> dict[str, Any]:
    """What is said of both versions, key by key.

    What both changed is ours or theirs by those strategies, and otherwise said no more: the versions that were merged
    still say it. Figures are of the weights that they were measured on, and lineage is each version's own.
    """
    before = metadata(bases[0]) if len(bases) == 1 else {}
    found = _agreed(before, metadata(ours), metadata(theirs), strategy.name)
    return {key: value for key, value in found.items() if key.partition(".")[0] not in ("merge", "metrics")}


def _agreed(before: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], strategy: str) -> dict[str, Any]:
    found = dict[str, Any]()
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        was, mine, other = before.get(key), ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            found[key] = _agreed(was if isinstance(was, dict) else {}, mine, other, strategy)
        elif other in (mine, was) or strategy == "ours":
            found[key] = mine
        elif mine == was or strategy == "theirs":
            found[key] = other
    return {key: value for key, value in found.items() if value is not None}


def adapted(ours: Tree, folder: Path, weight: float) -> Plan:
    """Of a version and a low-rank adapter of it. Raises ModelInvalid."""
    files, mine = _files(ours), _top(listed(ours))
    kinds = {tensor.name: (tensor.dtype, tensor.shape) for tensor in _tensors(*mine.values()).values()}
    found = adapter.pairs(folder, kinds, weight)
    return _with_computed(files, mine, frozenset(found), lambda _blobs: adapter.added(found, str(folder)))


def _blended(bases: Sequence[Tree], ours: Tree, theirs: Tree, strategy: Strategy, what: str) -> Plan:
    """Weights by arithmetic, in the files of ours; all else from who changed it."""
    before, mine, other = [_files(base) for base in bases], _files(ours), _files(theirs)
    _check_configs(mine, other, what)
    own, their = (_top(listed(tree)) for tree in (ours, theirs))
    tensors, others = _tensors(*own.values()), _tensors(*their.values())
    _check_tensors(tensors, others, what)
    start: Mapping[str, Tensor] = tensors
    if strategy.name == "task":
        if not bases:
            remedy = "merge versions that descend from one, or take linear"
            raise ModelInvalid(what, "has no version in common with ours to count changes from", remedy)
        start = _tensors(*_top(listed(bases[0])).values())
        _check_tensors(tensors, start, f"what {what} and ours come from")
    changed = frozenset(name for name, each in others.items() if each != start[name] and each.dtype in FLOATS)
    of_ours = {name: mine[name] for name in mine if _is_top(name)}
    rest = [{name: side[name] for name in side if not _is_top(name)} for side in (*before, mine, other)]
    files, both = three_way(rest[:-2], rest[-2], rest[-1])
    _check_names([*files, *of_ours])

    def change(blobs: Blobs) -> Change:
        return merging.blend(strategy, others, start, lambda tensor: weights.read(tensor, blobs), what)

    plan = _with_computed(files | of_ours, own, changed, change)
    clashes = tuple(_clash(name, mine, other) for name in both)
    return Plan(plan.files, clashes, {}, plan.computed, plan.changed, plan.change)


def _with_computed(
    files: Files, ours: Mapping[str, Pieces], changed: frozenset[str], change: Callable[[Blobs], Change]
) -> Plan:
    touched = {name: file for name, file in ours.items() if any(tensor.name in changed for tensor in file.tensors)}
    kept = dict(entry for name, entry in files.items() if name not in touched)
    return Plan(kept, (), {}, touched, changed, change)


def _mixed(
    bases: Sequence[Pieces], ours: Pieces, theirs: Pieces, strategy: Strategy, what: str
) -> tuple[tuple[tuple[Pieces, ...], dict[str, Tensor]], str]:
    """The tensors of a weight file that both changed, whose heads it may have, and those that clash, in words."""
    own, other = _tensors(ours), _tensors(theirs)
    tensors, both = three_way([_tensors(base) for base in bases], own, other)
    for name in both:
        _check_kind(name, own, other, what)
    if strategy.name in ("ours", "theirs"):
        tensors |= {name: (own if strategy.name == "ours" else other)[name] for name in both}
        both = []
    heads, unsettled = three_way([{"": base.head} for base in bases], {"": ours.head}, {"": theirs.head})
    first = theirs if unsettled and strategy.name == "theirs" else ours
    if not unsettled and heads[""] != ours.head:
        first = theirs
    said = f"{len(both)} tensor{'s'[: len(both) - 1]} ({_some(both)})" if both else ""
    return ((first, theirs if first is ours else ours), tensors), said


def _index(name: str, ours: bytes, theirs: bytes, there: Mapping[str, Sequence[Tensor]]) -> bytes:
    """What of a model is in which file, after a merge in which both changed that: as the weights are."""
    try:
        said, other = json.loads(ours), json.loads(theirs)
        named = {*said["weight_map"].values(), *other["weight_map"].values()}
        own = {file: there.get(str(PurePosixPath(name).with_name(file)), ()) for file in sorted(named)}
        metadata = {**said.get("metadata", {}), "total_size": sum(each.size for file in own.values() for each in file)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as wrong:
        problem = f"was changed on both sides, and cannot be made anew ({wrong})"
        raise ModelInvalid(name, problem, "push the source's weights in the files of the target's") from None
    held = {tensor.name: file for file, tensors in own.items() for tensor in tensors}
    return json.dumps({"metadata": metadata, "weight_map": dict(sorted(held.items()))}, indent=2).encode() + b"\n"


def _clash(name: str, ours: Files, theirs: Files) -> str:
    if name in ours and name in theirs:
        return f"{name}, which both changed"
    gone, kept = ("source", "target") if name in ours else ("target", "source")
    return f"{name}, which the {gone} removed and the {kept} changed"


def _check_architectures(bases: Sequence[Files], ours: Files, theirs: Files, what: str) -> None:
    """Weights of two architectures are never mixed: of one, all come from one side, with its config."""
    if _both_changed(bases, ours, theirs):
        _check_configs(ours, theirs, what)


def _both_changed(bases: Sequence[Files], ours: Files, theirs: Files) -> bool:
    """Whether neither side has the weights and the config that both come from."""

    def untouched(side: Files) -> bool:
        core = [_core(files) for files in (side, *bases)]
        return len(core) > 1 and all(each == core[0] for each in core)

    return not untouched(ours) and not untouched(theirs)


def _core(files: Files) -> Files:
    return {name: entry for name, entry in files.items() if name == CONFIG or _is_weights(name)}


def _check_configs(ours: Files, theirs: Files, what: str) -> None:
    if problem := _unlike(ours, theirs, what):
        remedy = "only versions of one architecture can be mixed: take one whole by the strategy ours or theirs"
        raise ModelInvalid(what, problem, remedy)


def _unlike(ours: Files, theirs: Files, what: str) -> str:
    """How theirs is of another architecture; nothing where it is not."""
    mine, other = _config(ours, "ours"), _config(theirs, what)
    unlike = [key for key in _SAME if mine.get(key) != other.get(key)]
    return f"has {unlike[0]} {other.get(unlike[0])!r} where ours has {mine.get(unlike[0])!r}" if unlike else ""


def _config(files: Files, what: str) -> dict[str, Any]:
    try:
        found = json.loads(files[CONFIG][1])
    except (KeyError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelInvalid(what, f"has no {CONFIG} that is a JSON object", "push the version again")
    return found


def _check_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], what: str) -> None:
    for name in sorted({*ours, *theirs}):
        _check_kind(name, ours, theirs, what)
        if ours[name].dtype not in FLOATS and ours[name] != theirs[name]:
            problem = f"has other whole numbers in {name} ({ours[name].dtype}), which cannot be blended"
            raise ModelInvalid(what, problem, "merge the float versions, then quantize what comes of it")


def _check_kind(name: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], what: str) -> None:
    kinds = [(found[name].dtype, found[name].shape) if name in found else None for found in (ours, theirs)]
    if kinds[0] != kinds[1]:
        there = f"{name} as {_kind(kinds[1])}" if kinds[1] else f"no {name}"
        problem = f"has {there} where ours has {_kind(kinds[0]) if kinds[0] else 'none'}"
        raise ModelInvalid(what, problem, "only weights of the same names, types and shapes can be merged")


def _check_names(names: Sequence[str]) -> None:
    """No name is a file and a folder, and none looks like another."""
    known = set(names)
    for name in names:
        for folder in PurePosixPath(name).parents:
            if str(folder) in known:
                remedy = "rename it on one of both branches"
                raise ModelInvalid(str(folder), "is a file on one side and a folder on the other", remedy)
    if alike := twins(names):
        raise ModelInvalid(alike[0], f"looks like {alike[1]} of the other side", "rename one of them on its branch")


def _check_twice(there: Mapping[str, Sequence[Tensor]], ours: Files, theirs: Files, what: str) -> None:
    """No tensor comes to stand in two files of a folder, as where both sides distributed them anew."""
    sides = [{name: each.tensors for name, each in _weights(files).items()} for files in (ours, theirs)]
    known = set().union(*(_twice(side) for side in sides))
    for folder, name in sorted(_twice(there) - known):
        problem = f"has {name} in another file than ours, and the merge would have it in two (of {folder})"
        raise ModelInvalid(what, problem, "push its weights in the files of ours")


def _twice(files: Mapping[str, Sequence[Tensor]]) -> set[tuple[str, str]]:
    seen: set[tuple[str, str]] = set()
    found: set[tuple[str, str]] = set()
    for file, tensors in files.items():
        for tensor in tensors:
            place = (str(PurePosixPath(file).parent), tensor.name)
            (found if place in seen else seen).add(place)
    return found


def _files(tree: Tree) -> Files:
    return {plain(path): (path, content) for path, content in tree.items() if path != FACTS}


def _weights(files: Files) -> dict[str, Pieces]:
    return {name: pieces.parse(*entry) for name, entry in files.items() if _is_weights(name)}


def _piece_lists(sides: Sequence[Files], name: str) -> list[Pieces]:
    return [pieces.parse(*side[name]) if name in side else Pieces(0, ()) for side in sides]


def _is_top(name: str) -> bool:
    """Whether it is part of the model's own weights, which are files beside its config."""
    return "/" not in name and (_is_weights(name) or name.endswith(INDEX))


def _is_weights(name: str) -> bool:
    return PurePosixPath(name).suffix == WEIGHTS


def _top(files: Mapping[str, Pieces]) -> dict[str, Pieces]:
    return {name: file for name, file in files.items() if _is_top(name)}


def _tensors(*files: Pieces) -> dict[str, Tensor]:
    return {tensor.name: tensor for file in files for tensor in file.tensors}


def _kind(kind: tuple[str, tuple[int, ...]]) -> str:
    return f"{kind[0]} {list(kind[1])}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
