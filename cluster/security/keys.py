"""API keys: issue, verify, revoke, list.

A key is `sk-strata-<id>-<secret>`; the id finds its record, the secret has 256 random bits. Only the SHA-256 of
the whole key is stored: a slow password hash guards secrets that can be guessed, and 256 random bits cannot.
Knows nothing of HTTP and of what a role may do.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import NotFound, SettingsInvalid, Unauthenticated

SHAPE = re.compile(r"sk-strata-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")  # 43 characters of base64url hold 32 bytes
UNKNOWN = "No such API key. Send the header `Authorization: Bearer sk-strata-...` with a key that was issued here."


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an API key's public side. `id` may be logged.

    `priority`: what its requests have unless they ask for a less urgent one, a higher number.
    """

    id: str
    name: str
    tenant: str
    role: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one key. `created` is seconds since 1970."""

    id: str
    name: str
    tenant: str
    role: str
    created: int
    sha256: str
    priority: int = 0

    @property
    def principal(self) -> Principal:
        return Principal(self.id, self.name, self.tenant, self.role, self.priority)


DECOY = Record("", "", "", "", 0, hashlib.sha256(secrets.token_bytes(32)).hexdigest())


class KeyRing:
    """The keys in one file, which several processes may read while one writes.

    The file is replaced whole, so a reader sees the old keys or the new ones. Every verification looks whether
    the file was replaced (one stat, a microsecond), so that a revoked key is refused at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._records: Mapping[str, Record] = {}

    def issue(self, name: str, tenant: str, role: str, created: int, priority: int = 0) -> str:
        """A new key, in clear for the only time."""
        with self._change() as records:
            public = new_id(records)
            key = f"sk-strata-{public}-{secrets.token_urlsafe(32)}"
            records[public] = Record(public, name, tenant, role, created, digest(key), priority)
        return key

    def revoke(self, public: str) -> Record:
        """Forget the key with this id. Raises NotFound."""
        with self._change() as records:
            if public not in records:
                raise NotFound("API key", public)
            return records.pop(public)

    def records(self) -> list[Record]:
        """All keys, oldest first."""
        return sorted(self._fresh().values(), key=lambda record: (record.created, record.id))

    def verify(self, key: str) -> Principal:
        """Whose key this is. Raises Unauthenticated.

        A malformed, an unknown and a wrong key take the same path: one look-up, one hash, one comparison.
        """
        match = SHAPE.fullmatch(key)
        record = self._fresh().get(match.group(1) if match else "", DECOY)
        same = hmac.compare_digest(digest(key), record.sha256)
        if not same or record is DECOY:
            raise Unauthenticated(UNKNOWN)
        return record.principal

    def _fresh(self) -> Mapping[str, Record]:
        try:
            seen = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._records = (), {}
            return self._records
        stamp = (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        if stamp != self._stamp:
            if seen.st_mode & 0o022:
                raise SettingsInvalid(str(self._path), f"mode {seen.st_mode & 0o777:o}", "run chmod 600 on it")
            self._records, self._stamp = read(self._path), stamp
        return self._records

    @contextmanager
    def _change(self) -> Iterator[dict[str, Record]]:
        """The records to change; written when the block ends well. One writer at a time, over all processes."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR, 0o600), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records = dict(self._fresh())
            yield records
            write(self._path, records.values())


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_id(taken: Mapping[str, Record], draw: Callable[[], str] = lambda: secrets.token_hex(6)) -> str:
    """A public id that no other key has."""
    while (public := draw()) in taken:
        pass
    return public


def read(path: Path) -> dict[str, Record]:
    """The records of a key file. Raises SettingsInvalid for a file that is not one."""
    try:
        listed = [Record(**entry) for entry in json.loads(path.read_text("utf-8"))["keys"]]
    except (ValueError, KeyError, TypeError) as wrong:
        raise SettingsInvalid(str(path), "this key file", "restore it, or remove it and issue new keys") from wrong
    return {record.id: record for record in listed}


def write(path: Path, records: Iterable[Record]) -> None:
    """Replace the file whole, readable by its owner alone."""
    text = json.dumps({"version": 1, "keys": [asdict(record) for record in records]}, indent=1)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
