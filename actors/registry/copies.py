"""Versions as folders on this machine, for those who serve them: fetched once, checked, shared.

Owns the cache. A file lies in it by its digest and in each version's folder by its name, as the same file. Its time of
change is drawn from its digest: who changes a file changes that, so that to find it whole costs a look and no reading.
Knows stores and manifests. Knows no registry and no signatures: whoever names a manifest's digest has checked them.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from actors.registry import pieces, tree
from actors.registry.folder import checked
from actors.registry.pieces import SUFFIX, Progress, quietly
from cluster.errors import ModelInvalid, NotFound, SettingsInvalid
from cluster.storage import Blobs
from cluster.storage.blobs import is_of

log = logging.getLogger("strata.registry")

FILES, FOLDERS, MANIFESTS, UNFINISHED = "files", "versions", "manifests", "unfinished"
_EPOCH, _SPAN = 1_000_000_000, 700_000_000  # seconds since 1970: from 2001 to 2023, which every file system can hold


@dataclass(frozen=True)
class File:
    """A file of a version: its name, what it is made from, its bytes and its digest. `cut`: from pieces."""

    name: str
    text: bytes
    cut: bool
    size: int
    digest: str

    @property
    def mark(self) -> int:
        """Its time of change."""
        return _EPOCH + int(self.digest[:12], 16) % _SPAN

    def whole(self, path: Path) -> bool:
        """Whether `path` is this file as it was written here."""
        try:
            found = path.lstat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mark * 10**9)


class Copies:
    """The cache in `folder` of versions whose content is in `store`; any number of processes may have it."""

    def __init__(self, folder: Path, store: str, most_gb: float | None = None) -> None:
        """`most_gb`: beyond it the versions go that were wanted longest ago; None: all stay."""
        self._folder, self._store, self._most_gb = folder, store, most_gb

    def path(self, manifest: str) -> Path:
        """Where the version of that manifest lies once it is here."""
        return self._folder / FOLDERS / manifest

    def ensure(self, manifest: str, what: str, progress: Progress = quietly) -> Path:
        """The version's folder, made if need be; `what` is its name for people.

        It appears whole or not at all, whoever is killed, and one process at a time makes it. Raises SettingsInvalid
        for a store or a cache that cannot be had here, NotFound and Unavailable for content that is missing or changed.
        """
        target = self.path(manifest)
        try:
            files = self._files(manifest, what)
            if not _whole(target, files):
                with self._alone():
                    if not _whole(target, files):
                        self._make(target, files, what, progress)
                        self._trim(target)
            with suppress(FileNotFoundError):  # another process needed the room
                os.utime(target)  # wanted now
        except OSError as wrong:
            problem = f"{wrong.filename or target} cannot be written ({wrong.strerror or wrong})"
            remedy = "make room, or name a folder that can be written, on every machine that serves"
            raise SettingsInvalid("registry.cache", str(self._folder), f"{problem}; {remedy}") from None
        return target

    def _files(self, manifest: str, what: str) -> dict[str, File]:
        kept = self._folder / MANIFESTS / manifest
        try:
            text = kept.read_bytes()
        except FileNotFoundError:
            text = b""
        if hashlib.sha256(text).hexdigest() != manifest:
            text = self._fetched(manifest, what)
            kept.parent.mkdir(parents=True, exist_ok=True)
            scratch = kept.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(text)
            os.replace(scratch, kept)  # noqa: PTH105 - a Path says the same longer
        return _files(text, what)

    def _fetched(self, manifest: str, what: str) -> bytes:
        try:
            return self._blobs.get(manifest)
        except NotFound:
            remedy = "the store that it was pushed to is another, or was emptied; push it again, then deploy"
            raise ModelInvalid(what, f"is not in {self._store}", remedy) from None

    @cached_property
    def _blobs(self) -> Blobs:
        found = Blobs(self._store)
        if not found.there():
            machine = socket.gethostname()
            remedy = f"the machine {machine} does not see it; set a store that every machine which serves can reach"
            raise SettingsInvalid("registry.store", self._store, remedy)
        return found

    def _make(self, target: Path, files: Mapping[str, File], what: str, progress: Progress) -> None:
        if target.exists():
            log.warning("the copy of %s in %s was changed; it is made again", what, target)
        scratch, read = self._folder / UNFINISHED, self._near().read
        shutil.rmtree(scratch, ignore_errors=True)  # of who was killed: nobody else is here
        for file in files.values():
            path = scratch / "version" / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._place(file, path, scratch / file.digest, what, read, progress)
        gone = scratch / "gone"
        with suppress(FileNotFoundError):
            os.rename(target, gone)  # noqa: PTH104 - a Path says the same longer
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(scratch / "version", target)  # noqa: PTH104
        shutil.rmtree(scratch)

    def _trim(self, wanted: Path) -> None:
        """Take away what is too much, but for `wanted`. Who has it open keeps it, who wants it again makes it again."""
        others = [path for path in (self._folder / FOLDERS).iterdir() if path != wanted]
        others.sort(key=lambda path: path.stat().st_mtime_ns)
        while self._most_gb is not None and others and self._bytes() > self._most_gb * 1e9:
            gone = self._folder / UNFINISHED / "gone"
            gone.parent.mkdir(exist_ok=True)
            (self._folder / MANIFESTS / others[0].name).unlink(missing_ok=True)
            os.rename(others.pop(0), gone)  # noqa: PTH104
            shutil.rmtree(gone.parent)
            for path in (self._folder / FILES).iterdir():
                if path.stat().st_nlink == 1:  # in no version's folder any more
                    path.unlink()

    def _bytes(self) -> int:
        return sum(path.stat().st_size for path in (self._folder / FILES).iterdir())

    def _near(self) -> "Near":
        """The pieces of the files that are here, and the store for the others."""
        known: dict[str, tuple[Path, int, int]] = {}
        for manifest in (self._folder / MANIFESTS).glob("*"):
            with suppress(ModelInvalid, OSError):  # changed, or on its way: it helps nobody, and harms nobody else
                for file in _files(manifest.read_bytes(), manifest.name).values():
                    shared = self._folder / FILES / file.digest
                    if file.cut and file.whole(shared):
                        for at, count, digest, _ in pieces.parse(file.name, file.text).spans():
                            known[digest] = (shared, at, count)
        return Near(known, self._blobs)

    def _place(self, file: File, path: Path, scratch: Path, what: str, read: pieces.Read, progress: Progress) -> None:
        """Have `file` at `path`: the one that another version has, or a new one, which others will have."""
        shared = self._folder / FILES / file.digest
        if file.whole(shared):
            with suppress(OSError):  # a file system without links, or with too many of this file
                os.link(shared, path)
                progress(file.size)
                return
        if file.cut:
            with pieces.needed(f"{what} ({file.name})", self._store):
                pieces.join(pieces.parse(file.name, file.text), read, scratch, progress)
        else:
            scratch.write_bytes(file.text)
            progress(file.size)
        scratch.chmod(0o444)
        os.utime(scratch, (file.mark, file.mark))
        shared.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            os.link(scratch, path)
            os.replace(scratch, shared)  # noqa: PTH105
            return
        os.replace(scratch, path)  # noqa: PTH105

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time. What one that was killed had locked is free again."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class Near:
    """Reads a piece from a file that is here already where one has it, so that a sibling fetches what differs."""

    def __init__(self, known: Mapping[str, tuple[Path, int, int]], blobs: Blobs) -> None:
        """`known`: file, first byte and number of bytes of each piece."""
        self._known, self._blobs = known, blobs

    def read(self, digest: str, room: bytearray, quick: str = "") -> memoryview:
        """See `Blobs.read`; checked wherever it lies."""
        if found := self._known.get(digest):
            path, at, count = found
            content = memoryview(room)[:count]
            with suppress(OSError), path.open("rb", buffering=0) as opened:
                if os.preadv(opened.fileno(), [content], at) == count and is_of(content, digest, quick):
                    return content
        return self._blobs.read(digest, room, quick)


def _files(manifest: bytes, what: str) -> dict[str, File]:
    """What a manifest says, by name. Raises ModelInvalid."""
    return {
        name: _file(checked(name, what), content, cut=path.endswith(SUFFIX))
        for path, content in tree.of_manifest(manifest).items()
        for name in [tree.plain(path)]
    }


def _file(name: str, text: bytes, *, cut: bool) -> File:
    size = pieces.parse(name, text).size if cut else len(text)
    return File(name, text, cut, size, hashlib.sha256(b"cut" * cut + text).hexdigest())


def _whole(folder: Path, files: Mapping[str, File]) -> bool:
    """Whether these files, as they were written, and no others lie in `folder`."""
    found = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    return len(found) == len(files) and all(file.whole(folder / name) for name, file in files.items())
