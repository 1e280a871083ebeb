"""What the asking process and the one that forks say to each other: a Unix socket between processes of one user.

The socket's name stands for all in which two workers must agree to come from one parent. Knows nothing of Ray but two
variables that a raylet gives to workers: its process id, and their job.
"""

import array
import hashlib
import json
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

RAYLET, JOB = "RAY_RAYLET_PID", "RAY_JOB_ID"  # Ray reads both as it is imported, and never again
_LENGTH = struct.Struct("!I")
_PEER = struct.Struct("3i")  # pid, uid, gid: socket(7), SO_PEERCRED
STATUS = struct.Struct("!i")  # first the process id, then how it ended, as `os.waitstatus_to_exitcode` has it
MOST_BYTES = 1 << 24


class Wanted(NamedTuple):  # and no dataclass, whose import takes as long as that of all else here
    """A Python program to be run: what `execve` takes, and where."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str


def name_for(words: Sequence[str]) -> bytes:
    """The abstract socket's name (unix(7)), from the code's revision and the modules as `words`.

    It is one for each raylet, job, interpreter and folder too. Raises KeyError outside of Ray.
    """
    parts = [
        os.environ[RAYLET],
        os.environ[JOB],
        sys.executable,
        str(Path.cwd()),
        os.environ.get("PYTHONPATH", ""),
        *words,
    ]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return b"\0strata-fork-" + digest[:32].encode()


def mine(connection: socket.socket) -> bool:
    """Whether the other side is a process of this user."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user, _ = _PEER.unpack(peer)
    return bool(user == os.getuid())


def send(connection: socket.socket, wanted: Wanted, descriptors: Sequence[int]) -> None:
    """Ask for `wanted` with these open files as its first ones."""
    text = json.dumps([wanted.arguments, dict(wanted.environment), wanted.folder]).encode()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    connection.sendmsg([_LENGTH.pack(len(text))], [rights])
    connection.sendall(text)


def receive(connection: socket.socket) -> tuple[Wanted, list[int]]:
    """What was asked. Raises ValueError or OSError for anything else; then no file is left open."""
    _, descriptors = head = _head(connection)
    try:
        arguments, environment, folder = json.loads(exactly(connection, _LENGTH.unpack(head[0])[0]))
        return Wanted(tuple(arguments), environment, folder), descriptors
    except BaseException:
        for each in descriptors:
            os.close(each)
        raise


def _head(connection: socket.socket) -> tuple[bytes, list[int]]:
    head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
    if len(head) != _LENGTH.size or len(descriptors) != 3:
        for each in descriptors:
            os.close(each)
        raise ValueError("not a request")
    return head, descriptors


def exactly(connection: socket.socket, size: int) -> bytes:
    """The next `size` bytes. Raises ValueError where there are fewer."""
    if size > MOST_BYTES:
        raise ValueError(f"{size} bytes")
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ValueError(f"{len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)
