"""The state folder and the run folder of a local cluster: ours alone, with Ray's token and the locks in them.

Knows files. Knows nothing of Ray or of what else is kept there.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.errors import SettingsInvalid, Unavailable
from cluster.settings import ClusterSettings

FULL = (errno.ENOSPC, errno.EDQUOT)


def prepare(settings: ClusterSettings) -> None:
    """Make the state folder, the run folder and the token.

    Raises SettingsInvalid for folders that are not ours or cannot be written.
    """
    with writing(settings):
        for folder in (settings.state, settings.run_dir):
            _own(folder)
        _make_token(settings.state / "ray.token")


@contextmanager
def writing(settings: ClusterSettings) -> Iterator[None]:
    """What cannot be written inside becomes an error that names the file and the way out. Raises SettingsInvalid."""
    try:
        yield
    except OSError as wrong:
        problem = f"{wrong.filename or settings.state} cannot be written ({wrong.strerror or wrong})"
        remedy = "make room on that disk" if wrong.errno in FULL else "give a folder that can be made and written"
        raise SettingsInvalid(
            "cluster.state_dir", str(settings.state), f"{problem}; {remedy}, or set another state_dir"
        ) from None


@contextmanager
def alone(settings: ClusterSettings) -> Iterator[None]:
    """One start or stop at a time."""
    with _lock(settings, "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def held(settings: ClusterSettings) -> Iterator[None]:
    """One `strata up` at a time for a state folder, for as long as it runs: the kernel lets go when it dies.

    Raises Unavailable, with the number of the process that holds it.
    """
    prepare(settings)
    with _lock(settings, "up.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode(errors="replace") or "another"
            raise Unavailable(
                f"the state folder {settings.state}",
                f"a `strata up` holds it (process {owner}); change what it serves with `strata deploy`, end it with "
                "`strata down`, or set another cluster.state_dir",
            ) from None
        with writing(settings):
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield


@contextmanager
def _lock(settings: ClusterSettings, name: str) -> Iterator[int]:
    with writing(settings):
        lock = os.open(settings.state / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)


def _own(folder: Path) -> None:
    """Make a folder that only we can look into, and be sure that it is one: /tmp belongs to all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise SettingsInvalid("cluster.state_dir", str(folder), "it belongs to somebody else; set another state_dir")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def _make_token(path: Path) -> None:
    """Whole or not at all: half a token, as a full disk makes it, would lock everybody out."""
    if not path.exists() or not path.stat().st_size:
        path.unlink(missing_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        try:
            with os.fdopen(os.open(scratch, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            with suppress(FileExistsError):  # another start was faster
                os.link(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    path.chmod(0o600)
