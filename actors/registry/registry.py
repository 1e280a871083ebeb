"""The registry: pushed folders become versions, names become versions, versions become folders again.

Owns the order in which content, commits and refs are written: content first, refs last, so that whenever it ends
between two of them nothing half-done is named. Knows no process and no user but by the name it is given.
"""

import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.registry import adapter, difference, disk, joining, moves, pieces, tree, upkeep
from actors.registry.difference import Difference
from actors.registry.folder import FACTS, checked, files
from actors.registry.history import ALIASES, HEADS, MAIN, MOVES, TAGS, Entry, History, begun, named, numbered
from actors.registry.inspection import Fault
from actors.registry.merging import COUNTED, Strategy
from actors.registry.pieces import SUFFIX, Progress, quietly
from actors.registry.signing import Signer
from cluster.errors import Barred, InvalidRequest, MergeConflict, ModelInvalid, NotFound, listed
from cluster.storage import Blobs

CLEANLY = Strategy()
KINDS = {"alias": ALIASES, "tag": TAGS, "branch": HEADS}  # of what can be removed


@dataclass(frozen=True, slots=True)
class Version:
    """One version: immutable. `names` are the tags, branches and aliases that are at it; `size` in bytes.

    `signed`: by a key that this registry trusts.
    """

    model: str
    entry: Entry
    names: tuple[str, ...]
    metadata: Mapping[str, Any]
    files: Mapping[str, int]
    tensors: int
    size: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to. `stored`: the bytes that were not there before; of a `version` that was there, those of
    large files that had been lost.

    `not_finite`: of tensors with values that are no finite numbers how many, and of how many. `begins`: of a branch
    that the push made, the version of main where it begins, empty where there is none.
    """

    version: str
    commit: str
    size: int
    stored: int
    new: bool
    not_finite: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    begins: str | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """A version once and for all: its commit, the digest of its manifest in the store, its bytes."""

    model: str
    commit: str
    manifest: str
    size: int


@disk.all_explained
class Registry:
    """All models under `folder`; their content in `store`, by default beside them."""

    def __init__(self, folder: Path, store: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        (folder / "models").mkdir(parents=True, exist_ok=True)
        self.store = store or str(folder / "content")
        self.blobs, self._signer = Blobs(self.store), Signer(folder, new=not self.models())

    def models(self) -> list[str]:
        """Names."""
        there = os.listdir(self.folder / "models")  # noqa: PTH208 - a glob finds nothing where it may not look
        names = [name.removesuffix(".git") for name in there if name.endswith(".git")]
        return sorted(name for name in names if begun(self._path(name)))

    def _path(self, model: str) -> Path:
        return self.folder / "models" / f"{model}.git"

    def push(
        self,
        model: str,
        path: Path,
        *,
        author: str,
        branch: str = MAIN,
        message: str = "",
        metadata: Mapping[str, Any] | None = None,
        beside: Sequence[Path] = (),
        progress: Progress = quietly,
    ) -> Pushed:
        """The folder `path` as the next version of `model`, at the tip of `branch`; see `folder.files` for `beside`.

        A push that was cut goes on where it was when it is repeated; a folder that is the tip, with nothing else to say
        of it, stays that version. Raises ModelInvalid, InvalidRequest, and Conflict where the branch moved meanwhile.
        """
        named("model", model)
        named("branch", branch)
        content, found = {FACTS: tree.facts(metadata or {})}, files(path, beside)
        history = self.history(model) if begun(self._path(model)) else None
        size = small = stored = 0
        wrong: dict[str, tuple[int, int]] = {}
        with self.using():
            tip, parents = self._parents(history, branch) if history is not None else (None, ())
            for file in found:
                size += file.size
                if file.whole:
                    content[file.name] = file.path.read_bytes()
                    small += file.size
                    progress(file.size)
                else:
                    made, new, odd = pieces.cut(file.path, self.blobs, progress)
                    content[file.name + SUFFIX] = made.text()
                    wrong |= {
                        each.name: (odd[each.name], math.prod(each.shape)) for each in made.tensors if each.name in odd
                    }
                    stored += new
            history = history or self.history(model, new=True)  # a first push that is cut leaves no model behind
            there = self._there(history, tip, content) if tip else {}
            if tip and there and (there if metadata else there | {FACTS: content[FACTS]}) == content:
                return Pushed(self._tag(history, tip), tip, size, stored, new=False, not_finite=wrong)
            reason = message or f"Push {path.name}"
            commit = history.commit(content, parents, author, int(self._clock()), reason, self._signer.sign)
            version = history.number(commit, branch, tip, self._signed)
            begins = None if tip else self._tag(history, parents[0]) if parents else ""
        return Pushed(version, commit, size, small + stored, new=True, not_finite=wrong, begins=begins)

    def _parents(self, history: History, branch: str) -> tuple[str | None, tuple[str, ...]]:
        """The tip of `branch`, before anything is written, and what a push to it descends from."""
        tip, main = history.refs(HEADS).get(branch), history.refs(HEADS).get(MAIN)
        history.expect(HEADS + branch, tip)
        parent = tip or main  # a new branch begins where main is
        if parent is None:
            return None, ()
        self._require_signed(history, parent, f"{history.path.stem}@{parent[:12]}")
        return tip, (parent,)

    @staticmethod
    def _there(history: History, tip: str, content: Mapping[str, bytes]) -> dict[str, bytes]:
        """What the tip holds. What of it was lost is put back where `content` is the same; nothing where it is not."""
        with suppress(ModelInvalid):
            return history.files(tip)
        history.keep(content)
        with suppress(ModelInvalid):
            return history.files(tip)
        return {}

    def log(self, model: str, name: str = MAIN) -> Iterator[tuple[Entry, tuple[str, ...]]]:
        """What `name` descends from with what is at each, the latest first. Raises NotFound."""
        history = self.history(model)
        names = _names(history)
        for entry in history.log(history.resolve(name)):
            yield entry, names.get(entry.id, ())

    def show(self, model: str, name: str = MAIN) -> Version:
        """The version that `name` names. Raises NotFound, and ModelInvalid for one that was tampered with."""
        history = self.history(model)
        commit = history.resolve(name)
        found = history.files(commit)
        sizes = tree.sizes(found)
        count = sum(len(each.tensors) for each in tree.listed(found).values())
        names = _names(history).get(commit, ())
        signed = self._signer.signed(*history.signature(commit))
        entry = next(history.log(commit))
        return Version(model, entry, names, tree.metadata(found), sizes, count, sum(sizes.values()), signed)

    def diff(self, model: str, before: str, after: str, progress: Progress = quietly) -> Difference:
        """From the version `before` to `after`. Raises NotFound.

        Reads the tensors that changed, to say how much: the norm of the change over that of what they were.
        """
        history = self.history(model)
        old, new = (history.files(history.resolve(name)) for name in (before, after))
        with pieces.needed(f"{model}@{before} or {after}", self.store):
            return difference.between(old, new, self.blobs, progress)

    def checkout(self, model: str, name: str, into: Path, progress: Progress = quietly) -> str:
        """Write the version that `name` names to the new folder `into`, every piece checked; its commit.

        The folder appears whole or not at all. Raises NotFound, Conflict where it is there, ModelInvalid for a version
        that nobody signed who is trusted, Unavailable for content that was changed.
        """
        history, commit = self.history(model), self.trusted(model, name)
        disk.expect_new(into)
        scratch = into.parent / f".{into.name}.{secrets.token_hex(4)}"
        number = next((version for version, at in numbered(history).items() if at == commit), name)
        try:
            with self.using(reading=True):
                for path, content in history.files(commit).items():
                    if path == FACTS:
                        continue
                    target = scratch / checked(tree.plain(path), f"{model}@{name}")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if path.endswith(SUFFIX):
                        with pieces.needed(f"{model}@{number} ({tree.plain(path)})", self.store):
                            pieces.join(pieces.parse(path, content), self.blobs.read, target, progress)
                    else:
                        target.write_bytes(content)
                        progress(len(content))
            os.rename(scratch, into)  # noqa: PTH104 - a Path says the same longer
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return commit

    def pin(self, model: str, name: str) -> Pin:
        """What `name` names now, for whoever makes folders of it where this registry is not: see `Copies`.

        Raises NotFound, ModelInvalid for a version that nobody signed who is trusted, and Unavailable.
        """
        history, commit = self.history(model), self.trusted(model, name)
        content = history.files(commit)
        with self.using():
            digest, _ = self.blobs.put(tree.manifest(content))
        return Pin(model, commit, digest, sum(tree.sizes(content).values()))

    def restore(self, model: str, name: str, *, author: str, branch: str, at: str, message: str) -> str:
        """Make what the version `name` holds the next one of `branch`, after the commit `at` that it is at; its number.

        Raises what `trusted` does, and Conflict where the branch is elsewhere.
        """
        history, commit = self.history(model), self.trusted(model, name)
        history.expect(HEADS + branch, at)
        made = history.commit(history.files(commit), (at,), author, int(self._clock()), message, self._signer.sign)
        return history.number(made, branch, at, self._signed)

    def trusted(self, model: str, name: str) -> str:
        """The commit that `name` names. Raises NotFound, and ModelInvalid where nobody signed it who is trusted."""
        history = self.history(model)
        commit = history.resolve(name)
        self._require_signed(history, commit, f"{model}@{name}")
        if name in history.refs(ALIASES) and (problem := self.astray(history, name)):
            raise ModelInvalid(f"{model}@{name}", problem, "move it with `strata models alias`, to where it is to be")
        return commit

    def number(self, model: str, name: str) -> str:
        """The number (`v3`) of the version that `name` names. Raises NotFound."""
        history = self.history(model)
        return self._tag(history, history.resolve(name))

    def branch(self, model: str, branch: str, name: str = MAIN) -> str:
        """Make a branch that begins at the version `name`. Raises what `trusted` does, and Conflict."""
        history, commit = self.history(model), self.trusted(model, name)
        self._begin(history, "branch", branch, commit)
        return commit

    def tag(self, model: str, tag: str, name: str = MAIN) -> str:
        """Give a version a name that never moves. Raises what `trusted` does, and Conflict for one that is taken."""
        history, commit = self.history(model), self.trusted(model, name)
        self._begin(history, "tag", tag, commit)
        return commit

    @staticmethod
    def _begin(history: History, kind: str, name: str, commit: str) -> None:
        if there := history.refs(KINDS[kind]).get(named(kind, name)):
            raise Barred(f"the {kind} {name}", f"is there already, at {there[:12]}", "take another name")
        history.move(KINDS[kind] + name, commit, None)

    def remove(self, model: str, name: str, kind: str | None = None) -> str:
        """Take an alias, a tag or a branch away, of several with one name that of `kind`; what it was.

        Versions stay, and so does where an alias has been. Raises NotFound, InvalidRequest and Barred.
        """
        history = self.history(model)
        if kind is not None and kind not in KINDS:
            raise InvalidRequest("--kind", kind, f"take one of {', '.join(KINDS)}")
        there = {each: ref for each, ref in KINDS.items() if kind in (None, each) and name in history.refs(ref)}
        if not there:
            known = {each for wanted, ref in KINDS.items() if kind in (None, wanted) for each in history.refs(ref)}
            free = listed(known - numbered(history).keys() - {MAIN})
            raise NotFound(kind or "alias, tag or branch", f"{model}@{name}", free)
        if len(there) > 1:
            raise InvalidRequest("--kind", "nothing", f"{name} is {' and '.join(there)}; say which")
        found, ref = next(iter(there.items()))
        if (ref, name) == (HEADS, MAIN) or (ref == TAGS and name in numbered(history)):
            raise Barred(f"{model}@{name}", "is for good", "remove an alias, a branch but main, or a tag that you made")
        history.drop(ref + name, history.refs(ref)[name])
        return found

    def merge(
        self,
        model: str,
        source: str,
        *,
        author: str,
        branch: str = MAIN,
        strategy: Strategy = CLEANLY,
        message: str = "",
        progress: Progress = quietly,
    ) -> Pushed:
        """Make of the tip of `branch` and of the version `source` the next version, at that tip, with both as parents.

        What only one side changed since both were one is that side's, file by file and of weights tensor by tensor.
        `Strategy` says what becomes of what both changed; `linear` and `task` count over all weights, and `lora` adds
        the adapter in the folder `source` to those of the tip. Raises NotFound, MergeConflict with what nobody decided,
        ModelInvalid for versions that do not fit one another, and Conflict where the branch moved meanwhile.
        """
        history, tip, theirs = self._sides(model, source, branch, strategy)
        with self.using():  # from the first piece to the commit that names it: nobody collects it in between
            plan = self._plan(model, history, source, tip, theirs, strategy)
            if plan.clashes:
                raise MergeConflict(source, branch, plan.clashes)
            with pieces.needed(f"{model}@{branch} or {source}", self.store):
                content, stored = plan.write(self.blobs, progress)
            content[FACTS] = tree.facts(self._lineage(history, source, tip, theirs, strategy))
            parents = (tip,) if theirs is None else (tip, theirs)
            reason = message or f"Merge {source} into {branch} ({strategy.name})"
            commit = history.commit(content, parents, author, int(self._clock()), reason, self._signer.sign)
            version = history.number(commit, branch, tip, self._signed)
        return Pushed(version, commit, self.show(model, commit).size, stored, new=True)

    @staticmethod
    def _lineage(history: History, source: str, tip: str, theirs: str | None, strategy: Strategy) -> dict[str, Any]:
        """What is said of a merged version: how it came about, and what is said of both."""
        ours = history.files(tip)
        facts: dict[str, Any] = {"strategy": strategy.name, "ours": tip, "theirs": theirs or Path(source).name}
        if strategy.name in COUNTED:
            facts["weight"] = strategy.weight
        if theirs is None:
            facts["digest"] = adapter.digest(Path(source))
            return joining.said([ours], ours, ours, strategy) | {"merge": facts}
        bases = [history.files(base) for base in history.bases(tip, theirs)]
        return joining.said(bases, ours, history.files(theirs), strategy) | {"merge": facts}

    def clashes(self, model: str, source: str, *, branch: str = MAIN, strategy: Strategy = CLEANLY) -> tuple[str, ...]:
        """What nobody has decided, a line each, were it merged now; reads no weights. Raises what `merge` would."""
        history, tip, theirs = self._sides(model, source, branch, strategy)
        return self._plan(model, history, source, tip, theirs, strategy).clashes

    def _sides(self, model: str, source: str, branch: str, strategy: Strategy) -> tuple[History, str, str | None]:
        """The commits of a merge; of an adapter there is none."""
        history = self.history(model)
        tip = history.refs(HEADS).get(named("branch", branch))
        if tip is None:
            raise NotFound("branch", f"{model}@{branch}", listed(history.refs(HEADS)))
        if strategy.name == "lora":
            return history, tip, None
        theirs = history.resolve(source)
        if theirs in {entry.id for entry in history.log(tip)}:
            raise Barred(f"{model}@{source}", f"is in {branch} already", "there is nothing to merge")
        return history, tip, theirs

    def _plan(
        self, model: str, history: History, source: str, tip: str, theirs: str | None, strategy: Strategy
    ) -> joining.Plan:
        bases = history.bases(tip, theirs) if theirs else ()
        for commit in filter(None, (tip, theirs, *bases)):
            self._require_signed(history, commit, f"{model}@{commit[:12]}")
        ours = history.files(tip)
        if theirs is None:
            return joining.adapted(ours, Path(source), strategy.weight)
        before = [history.files(base) for base in bases]
        return joining.joined(before, ours, history.files(theirs), strategy, f"{model}@{source}")

    def repair(self, progress: Progress = quietly) -> tuple[list[Fault], list[str]]:
        """As `fsck`, and what was removed: all that was changed, so that a push of the same again stores it."""
        return upkeep.repair(self, progress)

    def fsck(self, progress: Progress = quietly) -> list[Fault]:
        """Read everything that versions are made of, of every model: what is missing or was changed, each once."""
        return upkeep.fsck(self, progress)

    def gc(self) -> int:
        """Remove content that no version names, as pushes leave that were cut; how many pieces. Waits for pushes.

        Raises ModelInvalid where a history cannot be read: what it names nobody knows.
        """
        return upkeep.gc(self)

    def record(
        self,
        model: str,
        ref: str,
        files: Mapping[str, bytes],
        author: str,
        reason: str,
        at: str | None,
        also: Mapping[str, tuple[str | None, str]] | None = None,
    ) -> str:
        """Keep `files` as what `ref` is at next, if it is at `at` now, None for nowhere. Raises Conflict.

        `also`: refs that move with it, each from where it is to be to a commit; all of them or none.
        """
        history = self.history(model)
        parents = (at,) if at else ()
        commit = history.commit(files, parents, author, int(self._clock()), reason, self._signer.sign)
        history.shift({ref: (at, commit), **(also or {})})
        return commit

    def history(self, model: str, *, new: bool = False) -> History:
        """The commits and refs of a model, which is made where it is `new`. Raises NotFound."""
        path = self._path(named("model", model))
        if not new and not begun(path):
            raise NotFound("model", model, listed(self.models()))
        return History(path)

    def unsigned(self, history: History, commit: str) -> str:
        """What is wrong with the signature of a commit; nothing where it is good."""
        good = self._signer.signed(*history.signature(commit))
        return "" if good else f"it is not signed by a key of {self._signer.trusted_file}"

    def astray(self, history: History, alias: str) -> str:
        """What is wrong with where an alias is; nothing where a signed move left it there."""
        at, commit = history.refs(MOVES).get(alias), history.refs(ALIASES).get(alias)
        while history.refs(MOVES).get(alias) != at:  # it moved while both were read
            at, commit = history.refs(MOVES).get(alias), history.refs(ALIASES).get(alias)
        if commit is None:
            return ""  # somebody removed it meanwhile
        if at is None or self.unsigned(history, at):
            return f"is at {commit[:12]} by no signed move: somebody put it there past Strata"
        left = moves.parse(history.files(at)[moves.FILE]).after
        there = f"is at {commit[:12]}, where its last signed move left it at {left[:12]}"
        return "" if left == commit else f"{there}: somebody moved it past Strata"

    def _signed(self, history: History, commit: str) -> bool:
        try:
            return not self.unsigned(history, commit)
        except (NotFound, ModelInvalid):
            return False

    def _require_signed(self, history: History, commit: str, what: str) -> None:
        if problem := self.unsigned(history, commit):
            back = f"take its branch back (git --git-dir {history.path} update-ref refs/heads/BRANCH refs/tags/VERSION)"
            raise ModelInvalid(what, problem, f"{back}, or add the line of who signed it there")

    @staticmethod
    def _tag(history: History, commit: str) -> str:
        """The number of a version. Raises NotFound for a commit that is none."""
        numbers = [int(name[1:]) for name, at in numbered(history).items() if at == commit]
        if not numbers:
            raise NotFound("version", f"{history.model}@{commit[:12]}")
        return f"v{min(numbers)}"

    @contextmanager
    def using(self, *, alone: bool = False, reading: bool = False) -> Iterator[None]:
        """Content is added and read by many at once, and removed by one alone, in any process.

        Who is only `reading` may do so where no lock can be had: what is removed meanwhile is missed, never read wrong.
        """
        with disk.locked(self.folder / "content.lock", alone=alone, needed=not reading):
            yield


def _names(history: History) -> dict[str, tuple[str, ...]]:
    """By commit: the number first, then other tags, then branches, then aliases with an @."""
    numbers = numbered(history)
    found = dict[str, tuple[str, ...]]()
    for name, commit in numbers.items():
        found[commit] = (*found.get(commit, ()), name)
    for kind, mark in ((TAGS, ""), (HEADS, ""), (ALIASES, "@")):
        for name, commit in history.refs(kind).items():
            if kind == TAGS and name in numbers:
                continue
            found[commit] = (*found.get(commit, ()), mark + name)
    return found
