"""`python -m cluster.forking.ask REVISION MODULES PROGRAM ...`: run a program as a fork of a process that has MODULES.

Lives as long as the program and ends as it ends; when this process is killed, so is the program. Starts the process
that forks where there is none. Whatever goes wrong before there is a program, this process becomes the program itself.
"""

import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cluster.forking import start
from cluster.forking.wire import STATUS, Wanted, exactly, mine, name_for, send

if TYPE_CHECKING:
    import subprocess

BIND_SECONDS = 10.0  # Python and a socket: 0.05 s of a core that may have much to do
LISTEN_SECONDS = 1.0  # from taking the socket to listening at it
IMPORT_SECONDS = 120.0  # a program would take as long to import it all by itself
LOOK_SECONDS = 0.01


def main() -> NoReturn:
    """Have the program run, or become it."""
    revision, modules, *program = sys.argv[1:]
    try:
        connection = reach([revision, *modules.split(",")])
        wanted = Wanted(tuple(program), os.environ, str(Path.cwd()))
        send(connection, wanted, (0, 1, 2))
        connection.settimeout(IMPORT_SECONDS)
        (child,) = STATUS.unpack(exactly(connection, STATUS.size))
        followed = os.pidfd_open(child)
    except (KeyError, OSError, ValueError):
        os.execv(sys.executable, [sys.executable, *program])  # noqa: S606 — that is the purpose
    code = outcome(connection, followed)
    os._exit(code if code >= 0 else 128 - code)  # as a shell says it of a signal


def reach(words: list[str]) -> socket.socket:
    """A connection to the process that forks. Raises OSError where there is none in time, KeyError outside of Ray."""
    name, deadline = name_for(words), time.monotonic() + BIND_SECONDS
    started: subprocess.Popen[bytes] | None = None
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(name)
        except ConnectionRefusedError:
            connection.close()
            started = started or start(words)
            if started.poll() is not None:  # another was first, and will listen at once, or nobody can be
                deadline = min(deadline, time.monotonic() + LISTEN_SECONDS)
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_SECONDS)
        else:
            if mine(connection):
                return connection
            raise PermissionError("the socket is another user's")


def outcome(connection: socket.socket, followed: int) -> int:
    """How the program ended; where the process that forks ended before it, only that it did."""
    connection.settimeout(None)
    try:
        return int(STATUS.unpack(exactly(connection, STATUS.size))[0])
    except (OSError, ValueError):
        select.select([followed], [], [])
        return 1


if __name__ == "__main__":
    main()
