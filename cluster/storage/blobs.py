"""Pieces of content by their SHA-256, in a folder or whatever else fsspec opens.

Owns names and bytes of pieces. Knows nothing of what they are parts of, so that a piece is never changed, only made,
read and, when whoever knows says that nothing names it, removed.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from cluster.errors import NotFound, SettingsInvalid, Unavailable

UNFINISHED = "unfinished"  # the folder of pieces that are being written; what is left there is nobody's


def digest_of(content: bytes | memoryview) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


class Blobs:
    """The pieces under `url`: a path, or `s3://...` and the like where fsspec's package for it is installed.

    On a local disk a piece appears whole or not at all, whenever the process dies; object stores give that by
    themselves.
    """

    def __init__(self, url: str) -> None:
        """Raises SettingsInvalid for a store that cannot be opened."""
        try:
            system, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as wrong:
            raise SettingsInvalid("registry.store", url, str(wrong)) from None
        self._system: Any = system
        self._root = str(root).rstrip("/")
        self._local = Path(self._root) if "file" in _protocols(system) else None

    def there(self) -> bool:
        """Whether the store can be seen from here; of one that is no folder nobody knows before asking."""
        return self._local is None or self._local.is_dir()

    def has(self, digest: str) -> bool:
        """Whether the piece is there, unread."""
        if self._local is not None:
            return (self._local / digest[:2] / digest[2:]).is_file()
        return bool(self._system.exists(self._path(digest)))

    def put(self, content: bytes | memoryview) -> tuple[str, bool]:
        """The digest of `content`, and whether it is new here. Raises Unavailable where it cannot be written."""
        digest = digest_of(content)
        if self.has(digest):
            return digest, False
        try:
            if self._local is not None:
                self._write(self._local, digest, content)
            else:
                self._system.pipe_file(self._path(digest), bytes(content))
        except OSError as wrong:
            raise Unavailable(
                f"the store {self._root}", f"{wrong.strerror or wrong}; make room, or set another"
            ) from None
        return digest, True

    def get(self, digest: str) -> bytes:
        """The piece, checked. Raises NotFound where it is missing, and Unavailable where it is another by now."""
        try:
            content = bytes(self._system.cat_file(self._path(digest)))
        except FileNotFoundError:
            raise NotFound("piece of content", digest) from None
        except OSError as wrong:
            raise Unavailable(f"the store {self._root}", str(wrong.strerror or wrong)) from None
        if digest_of(content) != digest:
            remedy = "run `strata models fsck --repair`, then push its version again"
            raise Unavailable(f"the store {self._root}", f"the piece {digest} was changed; {remedy}")
        return content

    def mend(self, digest: str) -> bool:
        """Whether the piece is whole. One that is another by now is removed: who puts it next has to store it."""
        try:
            whole = digest_of(bytes(self._system.cat_file(self._path(digest)))) == digest
        except OSError:
            return False
        if not whole:
            self.remove(digest)
        return whole

    def read(self, digest: str, room: bytearray) -> memoryview:
        """As `get`; of a store on this disk into `room` if the piece fits, which saves fresh memory for each."""
        if self._local is None:
            return memoryview(self.get(digest))
        try:
            with (self._local / digest[:2] / digest[2:]).open("rb", buffering=0) as opened:
                content = memoryview(room)[: opened.readinto(room)]
                whole = not opened.read(1)
        except OSError:
            whole = False
        if whole and digest_of(content) == digest:
            return content
        return memoryview(self.get(digest))  # it is longer, or read in parts; or this says what is wrong with it

    def remove(self, digest: str) -> None:
        """Forget a piece; nothing happens where it is gone already."""
        with suppress(FileNotFoundError):
            self._system.rm_file(self._path(digest))

    def __iter__(self) -> Iterator[str]:
        """The digests of all pieces."""
        for path in self._system.find(self._root):
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
