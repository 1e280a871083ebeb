"""What a disk refuses, as an error that says what helps; and locks on files.

Knows numbers of errors. Knows nothing of what is read and written.
"""

import errno
import fcntl
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cluster.errors import Barred, Unavailable

REMEDIES = {
    errno.ENOSPC: "make room there, then do it again",
    errno.EDQUOT: "make room within the quota there, then do it again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), then do it again",
    errno.EROFS: "have it mounted so that it can be written; log, show, diff and checkout only read",
    errno.EACCES: "have the account that asks given the right to it; log, show, diff and checkout only read",
    errno.EPERM: "have the account that asks given the right to it; log, show, diff and checkout only read",
    errno.EIO: "look after the disk: it failed",
}
MAY_NOT_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
Owner = TypeVar("Owner", bound=type)


@contextmanager
def explained() -> Iterator[None]:
    """Raises Unavailable for what a disk refuses inside, with the file and a remedy."""
    try:
        yield
    except OSError as wrong:
        if wrong.errno not in REMEDIES:
            raise
        where = wrong.filename if isinstance(wrong.filename, str | os.PathLike) else "a disk that was to be written"
        raise Unavailable(str(where), f"{wrong.strerror}; {REMEDIES[wrong.errno]}") from None


def all_explained(owner: Owner) -> Owner:
    """A class all of whose public methods are `explained`."""
    for name, method in list(vars(owner).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(owner, name, _explained(method))
    return owner


def _explained(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def steps(*given: Any, **named: Any) -> Iterator[Any]:
        with explained():
            yield from method(*given, **named)

    @functools.wraps(method)
    def whole(*given: Any, **named: Any) -> Any:
        with explained():
            return method(*given, **named)

    return steps if inspect.isgeneratorfunction(method) else whole


@contextmanager
def locked(path: Path, *, alone: bool = True, needed: bool = True) -> Iterator[None]:
    """A lock that is free again when whoever had it was killed. Where it is not `needed`, without where one may not."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as wrong:
        if needed or wrong.errno not in MAY_NOT_WRITE:
            raise
    try:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def expect_new(folder: Path) -> None:
    """Raises Barred where `folder` is there already, or can be made by nobody. Makes those above it."""
    try:
        if folder.exists():
            raise Barred(f"the folder {folder}", "is there already", "name another, or remove it")
        folder.mkdir(parents=True)
        folder.rmdir()
    except OSError as wrong:
        if wrong.errno in REMEDIES:
            raise
        raise Barred(f"the folder {folder}", f"cannot be made ({wrong.strerror})", "name one elsewhere") from None


def ask_room(scratch: Path, size: int) -> None:
    """Raises OSError where `size` bytes more have no room: what is written by others cannot always be ended then."""
    try:
        with scratch.open("wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)
    except OSError as wrong:
        if wrong.errno in REMEDIES:  # and not of a file system that knows no such thing
            raise
    finally:
        scratch.unlink(missing_ok=True)
