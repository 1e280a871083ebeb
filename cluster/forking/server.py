"""`python -m cluster.forking.server REVISION MODULES`: import once, fork whenever asked.

Modules with a `~` before their names are imported when nobody has asked for a while: who asks sooner imports what it
needs of them by itself, beside others that do the same on other cores.

Has one thread, as a fork takes no other along, but the locks that they hold. Ends with the raylet whose workers it
makes, and when it has had no child for a while. Of what it imports it knows one thing, see `chance`.
"""

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from cluster.forking.wire import RAYLET, STATUS, Wanted, mine, name_for, receive

IDLE_SECONDS = 600.0
LATER = "~"
LATER_SECONDS = 5.0
ASK_SECONDS = 5.0  # for a request that has begun


def main() -> None:
    """Serve until there is nothing to serve for; in a child, be the program."""
    _revision, *modules = words = sys.argv[1:]
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(name_for(words))
    except OSError:
        return  # another was first
    door.listen(128)  # they wait while this imports
    os.setpgid(0, 0)  # a raylet ends the process group of a worker that has ended; this outlives the first that asked
    try:
        raylet = os.pidfd_open(int(os.environ[RAYLET]))
    except (OSError, ValueError):
        return  # there is none any more
    sooner = [module for module in modules if not module.startswith(LATER)]
    later = [module.removeprefix(LATER) for module in modules if module.startswith(LATER)]
    if not preload(sooner):
        return
    let_go()
    wanted = Server(door, raylet, partial(preload, later) if later else None).serve()
    if wanted is not None:
        run(wanted)


def preload(modules: Sequence[str]) -> bool:
    """Import `modules`, without threads of the libraries' own (a child sets how many it has) and without CUDA.

    What has begun with CUDA before a fork cannot after it: torch shall ask for devices by NVML. Whether forks of this
    process are good for anything now: those that Ray would mix up are not.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    fit = True
    if "ray" in modules or "ray" in sys.modules:
        from cluster.forking import chance  # noqa: PLC0415 - Ray is heavy, and the environment stands before it

        with chance.untouched():
            imports(modules)
        fit = chance.apart()
    else:
        imports(modules)
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page that holds an object
    return fit


def imports(modules: Sequence[str]) -> None:
    """Import them in this order."""
    for module in modules:
        importlib.import_module(module)


def let_go() -> None:
    """Hold nothing open of the first that asked, whose reader waits for its end. What failed by now has been said."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for place in range(3):
        os.dup2(nothing, place)
    os.close(nothing)


class Server:
    """Who has asked, and which process it got."""

    def __init__(self, door: socket.socket, raylet: int, later: Callable[[], bool] | None = None) -> None:
        """`later` is called once nobody has asked for a while: whether forks are good for anything after it."""
        self._door, self._raylet, self._later = door, raylet, later
        self._poll = select.epoll()
        for each in (door.fileno(), raylet):
            self._poll.register(each, select.EPOLLIN)
        self._askers: dict[int, tuple[socket.socket, int]] = {}  # by socket: it, and the child
        self._children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: the child, and who asked

    def serve(self) -> Wanted | None:
        """In each child what it shall be. In the parent nothing, once the raylet has ended or nobody wants anything."""
        while self._door.fileno() >= 0 or self._children:
            events = self._poll.poll(self._patience())
            if not events and self._later is None:
                return None
            if not events:
                self._import()
            for descriptor, _ in sorted(events, key=self._late):
                if descriptor == self._raylet:
                    return None
                if descriptor == self._door.fileno():
                    if (wanted := self._open()) is not None:
                        return wanted
                elif descriptor in self._children:
                    self._reap(descriptor)
                elif descriptor in self._askers:
                    self._drop(descriptor)
        return None

    def _patience(self) -> float | None:
        if self._later is not None:
            return LATER_SECONDS
        return None if self._children else IDLE_SECONDS

    def _import(self) -> None:
        """Import what was left for later. Where forks would not be good after it, nobody gets one any more."""
        later, self._later = self._later, None
        if later is not None and not later():
            self._poll.unregister(self._door.fileno())
            self._door.close()

    def _late(self, event: tuple[int, int]) -> bool:
        """Last comes who is new: he may get the number of a file closed in this round, of which more may be told."""
        return event[0] == self._door.fileno()

    def _open(self) -> Wanted | None:
        connection, _ = self._door.accept()
        try:
            if not mine(connection):
                raise PermissionError("another user")
            connection.settimeout(ASK_SECONDS)
            wanted, descriptors = receive(connection)
        except (OSError, TypeError, ValueError):
            connection.close()
            return None
        child = os.fork()
        if child == 0:
            self._leave(descriptors, connection)
            return wanted
        for each in descriptors:
            os.close(each)
        followed = os.pidfd_open(child)
        self._askers[connection.fileno()] = connection, child
        self._children[followed] = child, connection
        self._poll.register(followed, select.EPOLLIN)
        self._poll.register(connection.fileno(), select.EPOLLIN)
        self._tell(connection, child)
        return None

    def _reap(self, followed: int) -> None:
        child, connection = self._children.pop(followed)
        _, status = os.waitpid(child, 0)
        self._poll.unregister(followed)
        os.close(followed)
        if self._askers.pop(connection.fileno(), None):
            self._tell(connection, os.waitstatus_to_exitcode(status))
            self._poll.unregister(connection.fileno())
            connection.close()

    def _drop(self, descriptor: int) -> None:
        """Who asked says nothing more: it has ended, and its program ends with it."""
        connection, child = self._askers.pop(descriptor)
        self._poll.unregister(descriptor)
        connection.close()
        os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own

    def _tell(self, connection: socket.socket, value: int) -> None:
        with suppress(OSError):  # it has ended; its socket says so too
            connection.sendall(STATUS.pack(value))

    def _leave(self, descriptors: Sequence[int], connection: socket.socket) -> None:
        """In the child: a group of its own, none of the parent's files, those that came along as the first ones."""
        os.setpgid(0, 0)
        for descriptor in self._children:
            os.close(descriptor)
        for asker, _ in self._askers.values():
            asker.close()
        os.close(self._raylet)
        self._poll.close()
        self._door.close()
        connection.close()
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)


def run(wanted: Wanted) -> None:
    """Run the program in this process. What it raises Python handles as for any program: this is the last call."""
    os.chdir(wanted.folder)
    os.environ.clear()
    os.environ.update(wanted.environment)
    sys.argv = list(wanted.arguments)
    sys.path[0] = str(Path(wanted.arguments[0]).parent)
    reseed()
    runpy.run_path(wanted.arguments[0], run_name="__main__")


def reseed() -> None:
    """Chance that was drawn at import is the same in every child; Python's own is seeded anew by itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


if __name__ == "__main__":
    main()
