"""Pieces of content by their SHA-256, in a folder or whatever else fsspec opens.

Whoever kept the BLAKE3 of a piece, too, has it checked by that: as hard to forge, and several times as fast to compute.

Owns names and bytes of pieces. Knows nothing of what they are parts of, so that a piece is never changed, only made,
read and, when whoever knows says that nothing names it, removed.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from blake3 import blake3

from cluster.errors import ExtraMissing, NotFound, SettingsInvalid, Unavailable

EXTRAS = {"s3": "s3", "s3a": "s3"}  # of ours, by protocol
UNFINISHED = "unfinished"  # the folder of pieces that are being written; what is left there is nobody's


def digest_of(content: bytes | memoryview) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def quick_of(content: bytes | memoryview) -> str:
    """The BLAKE3, 64 hexadecimal digits: what `Blobs.read` checks by."""
    return blake3(content).hexdigest()


def is_of(content: bytes | memoryview, digest: str, quick: str) -> bool:
    """Whether it is the piece of that digest, by its BLAKE3 where that is known."""
    return quick_of(content) == quick if quick else digest_of(content) == digest


class Blobs:
    """The pieces under `url`: a path, or `s3://...` and the like where fsspec's package for it is installed.

    On a local disk a piece appears whole or not at all, whenever the process dies; object stores give that by
    themselves.
    """

    def __init__(self, url: str) -> None:
        """Raises SettingsInvalid for a store that cannot be opened, and ExtraMissing for one that an extra opens."""
        try:
            system, root = fsspec.core.url_to_fs(url)
        except ImportError as wrong:
            protocol = url.partition("://")[0]
            if protocol in EXTRAS:
                raise ExtraMissing(f"registry.store: {protocol}://", EXTRAS[protocol]) from None
            raise SettingsInvalid("registry.store", url, str(wrong)) from None
        except ValueError as wrong:
            raise SettingsInvalid("registry.store", url, str(wrong)) from None
        self._system: Any = system
        self._root = str(root).rstrip("/")
        self._local = Path(self._root) if "file" in _protocols(system) else None

    def there(self) -> bool:
        """Whether the store can be seen from here; of one that is no folder nobody knows before asking."""
        return self._local is None or self._local.is_dir()

    def has(self, digest: str) -> bool:
        """Whether the piece is there, unread. Raises Unavailable where the store does not answer."""
        if self._local is not None:
            return (self._local / digest[:2] / digest[2:]).is_file()
        with self._reaching():
            return bool(self._system.exists(self._path(digest)))

    def put(self, content: bytes | memoryview) -> tuple[str, bool]:
        """The digest of `content`, and whether it is new here. Raises Unavailable where it cannot be written."""
        digest = digest_of(content)
        if self.has(digest):
            return digest, False
        with self._reaching("; make room, or set another" if self._local is not None else "; see to registry.store"):
            if self._local is not None:
                self._write(self._local, digest, content)
            else:
                self._system.pipe_file(self._path(digest), bytes(content))
        return digest, True

    def get(self, digest: str) -> bytes:
        """The piece, checked. Raises NotFound where it is missing, and Unavailable where it is another by now."""
        with self._reaching():
            content = self._content(digest)
        if content is None:
            raise NotFound("piece of content", digest)
        if digest_of(content) != digest:
            remedy = "run `strata models fsck --repair`, then push its version again"
            raise Unavailable(f"the store {self._root}", f"the piece {digest} was changed; {remedy}")
        return content

    def mend(self, digest: str) -> bool:
        """Whether the piece is whole. One that is another by now is removed: who puts it next has to store it.

        Raises Unavailable where the store does not answer.
        """
        with self._reaching():
            content = self._content(digest)
        if content is None or digest_of(content) == digest:
            return content is not None
        self.remove(digest)
        return False

    def read(self, digest: str, room: bytearray, quick: str = "") -> memoryview:
        """As `get`; of a store on this disk into `room` if the piece fits, which saves fresh memory for each.

        `quick`: its BLAKE3, as it was kept by whoever has put it; empty where nobody has.
        """
        if self._local is None:
            return memoryview(self.get(digest))
        try:
            with (self._local / digest[:2] / digest[2:]).open("rb", buffering=0) as opened:
                content = memoryview(room)[: opened.readinto(room)]
                whole = not opened.read(1)
        except OSError:
            whole = False
        if whole and is_of(content, digest, quick):
            return content
        return memoryview(self.get(digest))  # it is longer, or read in parts; or this says what is wrong with it

    def remove(self, digest: str) -> None:
        """Forget a piece; nothing happens where it is gone already."""
        with self._reaching(), suppress(FileNotFoundError):
            self._system.rm_file(self._path(digest))

    def __iter__(self) -> Iterator[str]:
        """The digests of all pieces."""
        with self._reaching():
            paths = self._system.find(self._root)
        for path in paths:
            prefix, _, rest = str(path)[len(self._root) + 1 :].partition("/")
            if len(prefix) == 2 and len(rest) == 62:
                yield prefix + rest

    def sweep(self) -> int:
        """Remove what writers that died left behind; how many pieces that were. Only while nobody writes."""
        if self._local is None or not (self._local / UNFINISHED).is_dir():
            return 0
        left = list((self._local / UNFINISHED).iterdir())
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _content(self, digest: str) -> bytes | None:
        try:
            return bytes(self._system.cat_file(self._path(digest)))
        except FileNotFoundError:
            return None

    @contextmanager
    def _reaching(self, remedy: str = "") -> Iterator[None]:
        """Raises Unavailable for what goes wrong with the store inside: each kind of store has its own errors."""
        try:
            yield
        except Exception as wrong:  # noqa: BLE001 - as above
            why = getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
            raise Unavailable(f"the store {self._root}", why + remedy) from None

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest[2:]}"

    @staticmethod
    def _write(root: Path, digest: str, content: bytes | memoryview) -> None:
        scratch = root / UNFINISHED / f"{digest}.{secrets.token_hex(4)}"
        target = root / digest[:2] / digest[2:]
        for folder in (scratch.parent, target.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_bytes(content)
            os.replace(scratch, target)  # noqa: PTH105 - a Path says the same longer
        finally:
            scratch.unlink(missing_ok=True)


def _protocols(system: Any) -> tuple[str, ...]:
    named = system.protocol
    return (named,) if isinstance(named, str) else tuple(named)
