"""What a registry holds, looked at as a whole: what is missing or was changed, what is to be removed.

Owns what is read once however many versions name it, and what is removed and what never. Knows no version by name.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from actors.registry import inspection, tree
from actors.registry.history import ALIASES, History
from actors.registry.inspection import BROKEN, Fault, Faults, Place
from actors.registry.pieces import Progress
from cluster.errors import ModelInvalid, NotFound, Unavailable
from cluster.storage import Blobs
from cluster.storage.blobs import digest_of


class Kept(Protocol):
    """See `registry.Registry`."""

    @property
    def folder(self) -> Path: ...

    @property
    def blobs(self) -> Blobs: ...

    def models(self) -> list[str]: ...

    def history(self, model: str) -> History: ...

    def unsigned(self, history: History, commit: str) -> str: ...

    def astray(self, history: History, alias: str) -> str: ...

    def using(self, *, alone: bool = False) -> AbstractContextManager[None]: ...


def repair(kept: Kept, progress: Progress) -> tuple[list[Fault], list[str]]:
    """See `registry.Registry.repair`."""
    removed = []
    for model in kept.models():
        with suppress(*BROKEN):  # what this is, the check says
            removed += [f"the object {name} of {model}" for name in kept.history(model).mend()]
    with kept.using(alone=True):
        whole = {digest: kept.blobs.mend(digest) for digest in kept.blobs}
    removed += [f"the piece {digest}" for digest, good in whole.items() if not good]
    return _check(kept, {digest for digest, good in whole.items() if good}, progress), removed


def fsck(kept: Kept, progress: Progress) -> list[Fault]:
    """See `registry.Registry.fsck`."""
    return _check(kept, set(), progress)


def gc(kept: Kept) -> int:
    """See `registry.Registry.gc`."""
    with kept.using(alone=True):
        faults, named = Faults(), set[str]()
        for _, _, place, content in _every(kept, faults):
            named.update(_digests(content, place, faults))
        if wrong := faults.found():
            problem = f"what content is still named cannot be told: {wrong[0]}"
            remedy = f"nothing was removed; of {len(wrong)} such faults `strata models fsck` names each"
            raise ModelInvalid(str(kept.folder), problem, remedy)
        gone = [digest for digest in kept.blobs if digest not in named]
        for digest in gone:
            kept.blobs.remove(digest)
        return len(gone) + kept.blobs.sweep()


def _check(kept: Kept, good: set[str], progress: Progress) -> list[Fault]:
    """All faults; the pieces of the digests in `good`, which grows, are not read again."""
    faults, bad = Faults(), dict[str, str]()
    for history, commit, place, content in _every(kept, faults):
        try:
            if problem := kept.unsigned(history, commit):
                faults.add(place, problem)
        except Unavailable as wrong:  # of the list of whom to trust
            faults.add(place, wrong)
        for file, found in inspection.listed(place, content, faults):
            for _, count, digest, _ in found.spans():
                if digest not in good and digest not in bad:
                    if problem := _wrong(kept.blobs, digest):
                        bad[digest] = problem
                    else:
                        good.add(digest)
                        progress(count)
                if digest in bad:
                    faults.add(Place(place.model, place.at, file), bad[digest])
    for model in kept.models():
        with suppress(*BROKEN):  # what this is, was said
            history = kept.history(model)
            for alias in history.refs(ALIASES):
                if problem := kept.astray(history, alias):
                    faults.add(Place(model, alias), f"{problem}; move it with `strata models alias`")
    return faults.found()


def _wrong(blobs: Blobs, digest: str) -> str:
    """What is wrong with a piece; nothing where it is whole."""
    try:
        blobs.get(digest)
    except NotFound:
        return f"the piece {digest} is missing; push one of these versions again"
    except Unavailable as wrong:
        return wrong.reason if digest in wrong.reason else str(wrong)
    return ""


def _every(kept: Kept, faults: Faults) -> Iterator[tuple[History, str, Place, dict[str, bytes]]]:
    """All commits of all models, those of merge requests too, with the tree of each, past what cannot be read."""
    for model in kept.models():
        try:
            history = kept.history(model)
            for commit, place, content in inspection.commits(model, history, faults):
                yield history, commit, place, content
        except BROKEN as wrong:
            faults.add(Place(model), wrong)


def _digests(content: tree.Tree, place: Place, faults: Faults) -> Iterator[str]:
    """Of all that a version has in the store: its pieces, and its manifest where it was pinned."""
    for _, each in inspection.listed(place, content, faults):
        yield from each.digests()
    yield digest_of(tree.manifest(content))
