"""Versions of one model as commits of a bare Git repository, which ordinary git can read.

Owns refs: branches are heads, `v1`, `v2` and on are tags, aliases are `refs/aliases`. A ref moves only from where its
mover saw it. A process that dies leaves objects that nothing names, or nothing: refs come last.
"""

import itertools
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dulwich.errors import ApplyDeltaError, ChecksumMismatch, FileFormatException, MissingCommitError, NotGitRepository
from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tag, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo

from actors.registry import disk
from cluster.errors import Barred, Conflict, InvalidRequest, ModelInvalid, NotFound, listed

HEADS, TAGS, ALIASES, REQUESTS = "refs/heads/", "refs/tags/", "refs/aliases/", "refs/requests/"
MOVES, STAGES = "refs/moves/", "refs/stages/"  # where aliases have been, and how far versions have come
EVERY = (HEADS, TAGS, ALIASES, REQUESTS, MOVES, STAGES)
MAIN = "main"
PENDING = "strata.pending"  # refs that are being moved
LOCK = "strata.lock"
ROOM = "strata.room"  # asked for before files of dulwich are begun, which cannot be ended on a full disk
BLOCK = 4096  # bytes that a small file takes
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}[a-z0-9]|[a-z0-9]")
NAMES = {ALIASES: "an alias", TAGS: "a tag", HEADS: "a branch"}  # which share one namespace
_NUMBERED = re.compile(r"v[1-9][0-9]*")
_ID = re.compile(r"[0-9a-f]{7,40}")
_WHOLE = re.compile(r"[0-9a-f]{40}")
_BROKEN = (  # what dulwich raises for a repository that is not as it was written
    zlib.error, struct.error, FileFormatException, ChecksumMismatch, MissingCommitError, ApplyDeltaError, LookupError,
    ValueError, AssertionError, EOFError,
)  # fmt: skip
Lost = Callable[[str, Exception], None]  # told of what cannot be read: its name, and why


@dataclass(frozen=True, slots=True)
class Entry:
    """A commit: its id of 40 digits, those of its parents, who made it, when (seconds since 1970) and why."""

    id: str
    parents: tuple[str, ...]
    author: str
    at: int
    message: str


def named(field: str, name: str) -> str:
    """`name` if a model, branch, tag or alias may be called so. Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        remedy = "use up to 64 small letters, digits, dots, dashes and underscores, a letter or digit at the ends"
        raise InvalidRequest(field, name, remedy)
    if ".." in name or name.endswith(".lock"):
        raise InvalidRequest(field, name, "git keeps two dots in a row and the ending .lock for itself; use another")
    return name


def split(field: str, reference: str) -> tuple[str, str]:
    """The model and the name of `chat@prod`; without an @, the tip of main. Raises InvalidRequest."""
    model, at, name = reference.partition("@")
    if at and not name:
        raise InvalidRequest(field, reference, "after the @ stands a version, tag, branch or alias, such as chat@v3")
    return named(field, model), name or MAIN


def numbered(history: "History") -> dict[str, str]:
    """The commit of each version by its number, such as v3."""
    return {name: commit for name, commit in history.refs(TAGS).items() if _NUMBERED.fullmatch(name)}


def spans(versions: Iterable[str]) -> list[str]:
    """Numbers of versions for a person: `v1-v7`, `v9`."""
    found: list[tuple[int, int]] = []
    for number in sorted(int(version[1:]) for version in versions):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return [f"v{first}-v{last}" if last > first else f"v{first}" for first, last in found]


def begun(path: Path) -> bool:
    """Whether there is a repository at `path`, or what is left of one that held anything."""
    held = (left.is_file() for kind in ("objects", "refs") for left in (path / kind).rglob("*"))
    return (path / "HEAD").is_file() or any(held)


@disk.all_explained
class History:
    """The repository at `path`, made where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "HEAD").is_file():
            path.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not (path / "HEAD").is_file():
                    self._make()
        try:
            self._repo = Repo(str(path))
        except (NotGitRepository, *_BROKEN) as wrong:
            problem = f"is no whole Git repository ({wrong})"
            raise ModelInvalid(str(path), problem, "put it back from a copy of it") from None
        if (path / PENDING).is_file():
            with self._alone():
                pass

    def _make(self) -> None:
        """An empty repository: once HEAD is there, all is. What there is of one that was not made to its end goes."""
        if begun(self.path):
            remedy = f"put it back: echo 'ref: {HEADS}{MAIN}' > {self.path / 'HEAD'}"
            raise ModelInvalid(str(self.path), "its HEAD is lost", remedy)
        for left in self.path.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != LOCK:
                left.unlink()
        made = self.path / "strata.made"
        Repo.init_bare(made, mkdir=True, default_branch=MAIN.encode()).close()
        for part in sorted(made.iterdir(), key=lambda part: part.name == "HEAD"):
            part.rename(self.path / part.name)
        made.rmdir()

    def refs(self, kind: str) -> dict[str, str]:
        """The commit of each ref of a kind, HEADS, TAGS or ALIASES, by its short name."""
        try:
            found = self._repo.refs.as_dict(Ref(kind.rstrip("/").encode()))
        except _BROKEN as wrong:
            problem = f"its packed-refs cannot be read ({wrong})"
            raise ModelInvalid(str(self.path), problem, "put it back from a copy of it") from None
        plain = {name.decode(): commit.decode(errors="replace") for name, commit in sorted(found.items())}
        return {name: commit for name, commit in plain.items() if _WHOLE.fullmatch(commit)}

    def every(self, lost: Lost) -> dict[str, str]:
        """The commit of each ref of all kinds, by its whole name. `lost` is told of those that hold none."""
        found = {kind + name: commit for kind in EVERY for name, commit in self.refs(kind).items()}
        for root, _, names in os.walk(self.path / "refs", onerror=lambda wrong: lost("refs", wrong)):
            for name in names:
                ref = (Path(root) / name).relative_to(self.path).as_posix()
                if ref.startswith(EVERY) and not ref.endswith(".lock"):
                    try:
                        holds = (Path(root) / name).read_text(errors="replace").strip()
                        self._check(ref, holds if ref in found else holds.removeprefix("ref: "))
                    except (ModelInvalid, OSError) as wrong:
                        lost(ref, wrong)
        return found

    def commit(
        self,
        files: Mapping[str, bytes],
        parents: tuple[str, ...],
        author: str,
        at: int,
        message: str,
        sign: Callable[[bytes], bytes],
    ) -> str:
        """Keep `files` by path as a commit, signed, that no ref names yet; its id."""
        made = Commit()
        made.parents = [ObjectID(parent.encode()) for parent in parents]
        name = re.sub(r"[\x00-\x1f<>]", "_", author)  # what would end the line or the name
        made.author = made.committer = f"{name} <{name}>".encode()
        made.author_time = made.commit_time = at
        made.author_timezone = made.commit_timezone = 0
        made.encoding = b"UTF-8"
        made.message = message.encode()
        with self._alone():
            disk.ask_room(self.path / ROOM, sum(map(len, files.values())) + BLOCK * (2 * len(files) + 2))
            made.tree = self._tree({tuple(name.split("/")): content for name, content in files.items()})
            made.gpgsig = sign(made.as_raw_string())
            self._put(made)
        return made.id.decode()

    def keep(self, files: Mapping[str, bytes]) -> None:
        """Put back what of `files` was lost, by the digests that it has anyway."""
        with self._alone():
            self._tree({tuple(name.split("/")): content for name, content in files.items()})

    def mend(self) -> list[str]:
        """Remove the objects that were changed, so that who puts the same next stores it again; their digests."""
        with self._alone():
            names = [path.parent.name + path.name for path in self._loose()]
            return [name for name in names if self._remove_changed(name)]

    def move(self, ref: str, new: str, expected: str | None) -> None:
        """Point `ref` at the commit `new` if it is at `expected`, None for nowhere. Raises Conflict."""
        self.shift({ref: (expected, new)})

    def shift(self, refs: Mapping[str, tuple[str | None, str]]) -> None:
        """Move several refs, each from where it is expected to a commit: all or none. Raises Conflict, and Barred for
        a new name that another kind has.
        """
        with self._alone():
            for ref, (expected, _) in refs.items():
                self.expect(ref, expected)
            self._point({ref: new for ref, (_, new) in refs.items()})

    def drop(self, ref: str, expected: str) -> None:
        """Remove `ref` if it is at the commit `expected`. Raises Conflict."""
        with self._alone():
            self.expect(ref, expected)
            self._repo.refs.remove_if_equals(Ref(ref.encode()), ObjectID(expected.encode()))

    def number(self, new: str, branch: str, expected: str | None, ours: Callable[["History", str], bool]) -> str:
        """Make the commit `new` the branch's tip, if that is `expected`, and the model's next version; its tag.

        What counts are the versions that are `ours`; the number of a tag that somebody else made is passed over.
        """
        with self._alone():
            tag = f"v{self._next(ours)}"
            self.expect(HEADS + branch, expected)
            self._point({HEADS + branch: new, TAGS + tag: new})
        return tag

    def _next(self, ours: Callable[["History", str], bool]) -> int:
        there = sorted(((int(name[1:]), commit) for name, commit in numbered(self).items()), reverse=True)
        first = {commit: number for number, commit in there}  # a commit that is a version already is not another one
        last = next((number for number, commit in there if first[commit] == number and ours(self, commit)), 0)
        taken = {number for number, _ in there}
        return next(number for number in itertools.count(last + 1) if number not in taken)

    @property
    def model(self) -> str:
        """What it is the history of: its repository is called so."""
        return self.path.name.removesuffix(".git")

    def resolve(self, name: str) -> str:
        """The commit that a version's number, an alias, a tag, a branch or the first digits of an id name.

        Raises NotFound.
        """
        if name in (versions := numbered(self)):
            return versions[name]
        for kind in (ALIASES, TAGS, HEADS):
            if name in (found := self.refs(kind)):
                return found[name]
        if _ID.fullmatch(name):
            tips = self.tips(HEADS, TAGS, ALIASES)
            known = {entry.id for entry in self.log(*tips) if entry.id.startswith(name)} if tips else set()
            if len(known) == 1:
                return known.pop()
        names = {each for kind in NAMES for each in self.refs(kind)} - versions.keys()
        raise NotFound("version, alias or branch", f"{self.model}@{name}", (*spans(versions), *listed(names)))

    def log(self, *commits: str) -> Iterator[Entry]:
        """The commits and all that they descend from, each once, the latest first."""
        try:
            for step in self._repo.get_walker(include=[ObjectID(commit.encode()) for commit in commits]):
                made = step.commit
                author = made.author.decode(errors="replace").partition(" <")[0]
                yield Entry(
                    made.id.decode(), tuple(parent.decode() for parent in made.parents), author, made.commit_time,
                    made.message.decode(errors="replace"),
                )  # fmt: skip
        except _BROKEN:
            problem = f"a commit that {' or '.join(commit[:12] for commit in commits[:3])} descends from cannot be read"
            raise ModelInvalid(str(self.path), problem, "`strata models fsck` says which and what helps") from None

    def parents(self, commit: str) -> tuple[str, ...]:
        """Of a commit. Raises NotFound and ModelInvalid."""
        return tuple(parent.decode() for parent in self._commit(commit).parents)

    def files(self, commit: str, lost: Lost | None = None) -> dict[str, bytes]:
        """What a commit holds, by path. Raises NotFound, and ModelInvalid for what was lost or changed.

        With `lost` that is told of it, and the others are there.
        """
        return dict(self._read(self._commit(commit).tree, "", lost))

    def bases(self, one: str, other: str) -> tuple[str, ...]:
        """The commits that both descend from, but for those that others of these descend from; the latest first.

        None where nothing is in common, several where each was merged into the other, as `git merge-base --all` has it.
        """
        known = {entry.id for entry in self.log(one)}
        shared = [entry for entry in self.log(other) if entry.id in known]
        older = {parent for entry in shared for parent in entry.parents}
        return tuple(entry.id for entry in shared if entry.id not in older)

    def signature(self, commit: str) -> tuple[bytes, bytes | None]:
        """What was signed of a commit, and the signature. Raises NotFound."""
        made = self._commit(commit)
        return made.raw_without_sig(), made.gpgsig

    def _commit(self, commit: str) -> Commit:
        remedy = f"put its file objects/{commit[:2]}/{commit[2:]} back from a copy of the repository"
        made = self._object(ObjectID(commit.encode()), remedy)
        while isinstance(made, Tag):  # as `git tag -a` makes them
            made = self._object(made.object[1], remedy)
        if not isinstance(made, Commit):
            raise NotFound("version", commit)
        return made

    def _object(self, name: ObjectID, remedy: str = "push this version again, with its metadata") -> ShaFile:
        """One by its digest, which dulwich checks. Raises ModelInvalid where it is missing, or another by now."""
        try:
            return self._repo[name]
        except KeyError:
            problem = f"its object {name.decode()} is missing"
        except _BROKEN:
            problem = f"its object {name.decode()} was changed"
        raise ModelInvalid(str(self.path), problem, remedy)

    def _put(self, made: ShaFile) -> None:
        """Keep an object, in the place of one that was changed."""
        self._remove_changed(made.id.decode())
        self._repo.object_store.add_object(made)

    def _remove_changed(self, name: str) -> bool:
        path = self.path / "objects" / name[:2] / name[2:]
        if not path.is_file():
            return False
        try:
            self._object(ObjectID(name.encode()))
        except ModelInvalid:
            path.unlink()
            return True
        return False

    def _loose(self) -> Iterator[Path]:
        for path in self.path.glob("objects/??/*"):
            if _WHOLE.fullmatch(path.parent.name + path.name):
                yield path

    def tips(self, *kinds: str) -> set[str]:
        """The commits that refs of these kinds are at."""
        return {commit for kind in kinds for commit in self.refs(kind).values()}

    def expect(self, ref: str, expected: str | None) -> None:
        """Raises Conflict where `ref` is elsewhere, None for nowhere, and Barred for a new name that is taken."""
        if (loose := self._repo.refs.read_loose_ref(Ref(ref.encode()))) is not None:
            self._check(ref, loose.decode(errors="replace"))
        there = self._repo.refs.read_ref(Ref(ref.encode()))
        now = there.decode() if there else None
        if now != expected:
            raise Conflict(ref.removeprefix("refs/"), (expected or "nowhere")[:12], (now or "nowhere")[:12])
        if now is None:
            self._expect_free(ref)

    def _check(self, ref: str, holds: str) -> None:
        """Raises ModelInvalid for a ref that names no commit."""
        if not _WHOLE.fullmatch(holds) and not holds.startswith("ref: "):
            remedy = "write into that file the commit that it was at, or remove the file"
            raise ModelInvalid(str(self.path / ref), f"is a ref and names no commit ({holds[:20]!r})", remedy)

    def _expect_free(self, ref: str) -> None:
        """An alias, a tag and a branch of one name would hide one another, and a version's number them all."""
        own = next((kind for kind in NAMES if ref.startswith(kind)), None)
        if own is None:
            return
        name = ref.removeprefix(own)
        if name.startswith("v") and name[1:].isdigit():
            raise Barred(f"the name {name}", "is taken: v and a number is how versions are named", "take another name")
        for kind, article in NAMES.items():
            if kind != own and self._repo.refs.read_ref(Ref((kind + name).encode())):
                raise Barred(f"the name {name}", f"is taken: {article} has it", "take another name, or remove that one")

    def _point(self, refs: Mapping[str, str]) -> None:
        """All of them or, whenever this process dies, none: what is begun is written down, and ended by the next."""
        disk.ask_room(self.path / ROOM, BLOCK * (len(refs) + 1))
        scratch = self.path / f"{PENDING}.new"
        scratch.write_text(json.dumps(dict(refs)))
        os.replace(scratch, self.path / PENDING)  # noqa: PTH105 - a Path says the same longer
        self._finish()

    def _finish(self) -> None:
        """Move the refs that somebody has begun to move."""
        pending = self.path / PENDING
        if pending.is_file():
            for ref, commit in json.loads(pending.read_text()).items():
                self._repo.refs[Ref(ref.encode())] = ObjectID(commit.encode())
            pending.unlink()

    def _tree(self, files: Mapping[tuple[str, ...], bytes]) -> ObjectID:
        tree, folders = Tree(), dict[str, dict[tuple[str, ...], bytes]]()
        for path, content in files.items():
            if len(path) > 1:
                folders.setdefault(path[0], {})[path[1:]] = content
                continue
            blob = Blob.from_string(content)
            self._put(blob)
            tree.add(path[0].encode(), 0o100644, blob.id)
        for name, inside in folders.items():
            tree.add(name.encode(), 0o040000, self._tree(inside))
        self._put(tree)
        return tree.id

    def _read(self, name: ObjectID, path: str, lost: Lost | None) -> Iterator[tuple[str, bytes]]:
        """The file at `path`, or all of the folder there."""
        try:
            found = self._object(name)
        except (ModelInvalid, OSError) as wrong:
            if lost is None:
                raise
            lost(path, wrong)
            return
        if not isinstance(found, Tree):
            yield path, found.as_raw_string()
            return
        for entry in found.items():
            yield from self._read(entry.sha, f"{path}/{(entry.path or b'').decode()}".lstrip("/"), lost)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, in any process. What one that was killed had locked is free again."""
        with disk.locked(self.path / LOCK):
            for pattern in ("refs/**/*.lock", "objects/*/*.lock"):
                for left in self.path.glob(pattern):
                    left.unlink(missing_ok=True)
            if hasattr(self, "_repo"):
                self._finish()
            yield
