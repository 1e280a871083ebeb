"""One leader and the shards of its gang on one machine, over shared memory.

The leader writes a plan, the shards read it, rank 0 writes a result. Waiting is a futex: no busy core (there are as
many ranks as cores), some 10 us a wake-up where an actor call costs 1,400 us. A message longer than the buffer crosses
in pieces. Heartbeats of all sides stand in the same memory: a frozen process is one whose beat is old.
"""

import ctypes
import mmap
import os
import platform
import time
from pathlib import Path

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine())  # the syscall's number in the kernel's tables
_WAIT, _WAKE = 0, 1
_ALL = 2**31 - 1
_SLICE_SECONDS = 0.1  # how often a wait looks at heartbeats and deaths
_RANKS = 64
_HEADER = 4096
_BUFFER = 1 << 20


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Lane:
    """One direction: a sequence word (the futex), lengths, who has read how far, and a buffer."""

    def __init__(self, memory: mmap.mmap, offset: int, buffer: int, readers: int) -> None:
        self._words = memoryview(memory)[offset : offset + 4 * (4 + _RANKS)].cast("i")
        self._word = ctypes.c_int.from_buffer(memory, offset)
        self._address = ctypes.addressof(self._word)
        self._buffer = memoryview(memory)[buffer : buffer + _BUFFER]
        self._readers = readers

    def release(self) -> None:
        self._words.release()
        self._buffer.release()
        del self._word

    def write(self, payload: bytes, alive: "Alive") -> None:
        view = memoryview(payload)
        pieces = [view[at : at + _BUFFER] for at in range(0, len(view), _BUFFER)] or [view]
        for index, piece in enumerate(pieces):
            self._wait_for_readers(alive)
            self._buffer[: len(piece)] = piece
            self._words[1] = len(piece)
            self._words[2] = len(pieces) - 1 - index
            self._words[0] = (self._words[0] + 1) & 0x7FFFFFFF
            _wake(self._address)

    def read(self, reader: int, alive: "Alive") -> bytes:
        pieces = []
        while True:
            seen = self._words[4 + reader]
            while self._words[0] == seen:
                _sleep(self._address, seen)
                alive()
            pieces.append(bytes(self._buffer[: self._words[1]]))
            more = self._words[2]
            self._words[4 + reader] = self._words[0]
            if not more:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _wait_for_readers(self, alive: "Alive") -> None:
        pause = 0.0
        while any(self._words[4 + reader] != self._words[0] for reader in range(self._readers)):
            time.sleep(pause)  # readers copy out before they compute: this is the exception
            pause = min(0.001, pause + 0.0001)
            alive()


class Alive:
    """Called while waiting: raises when the other side is gone. The default never does."""

    def __call__(self) -> None:
        return None


class Channel:
    """Shared by one leader and `ranks` shards. Create on the leader's side, `attach` on a shard's."""

    def __init__(self, path: Path, ranks: int, create: bool) -> None:
        if ranks > _RANKS:
            raise ValueError(f"a channel holds at most {_RANKS} ranks on one machine")
        size = _HEADER + 2 * _BUFFER
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                _reserve(descriptor, size)
            self._memory = mmap.mmap(descriptor, size)
        except BaseException:
            if create:
                path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self.path, self.ranks = path, ranks
        self._plans = _Lane(self._memory, 0, _HEADER, ranks)
        self._results = _Lane(self._memory, 1024, _HEADER + _BUFFER, 1)
        self._beats = memoryview(self._memory)[2048 : 2048 + 8 * (_RANKS + 1)].cast("d")
        self._wishes = memoryview(self._memory)[3072:3073]
        self._pids = memoryview(self._memory)[3136 : 3136 + 4 * _RANKS].cast("i")

    @classmethod
    def create(cls, folder: Path, ranks: int) -> "Channel":
        """A new one in a folder that goes when every rank has it open: no kind of death leaks it then."""
        return cls(folder / "channel", ranks, create=True)

    @classmethod
    def attach(cls, path: str, ranks: int) -> "Channel":
        """The leader's, by its path."""
        return cls(Path(path), ranks, create=False)

    def introduce(self, rank: int) -> None:
        """Say that `rank` is this process, and that it is alive."""
        self._pids[rank] = os.getpid()
        self.beat(rank)

    def process(self, rank: int) -> int | None:
        """The process that introduced itself as `rank`; None before it did."""
        return self._pids[rank] or None

    def close(self) -> None:
        """Give the memory back; nothing may wait on it any more."""
        self._beats.release()
        self._wishes.release()
        self._pids.release()
        for lane in (self._plans, self._results):
            lane.release()
        self._memory.close()

    def send_plan(self, payload: bytes, alive: Alive) -> None:
        """To all ranks."""
        self._plans.write(payload, alive)

    def receive_plan(self, rank: int, alive: Alive) -> bytes:
        """The next plan for `rank`; waits."""
        return self._plans.read(rank, alive)

    def send_result(self, payload: bytes, alive: Alive) -> None:
        """From rank 0 to the leader."""
        self._results.write(payload, alive)

    def receive_result(self, alive: Alive) -> bytes:
        """The next result; waits."""
        return self._results.read(0, alive)

    def interrupt(self, wanted: bool) -> None:
        """From the leader to rank 0: answer after this step, however many the plan allows."""
        self._wishes[0] = wanted

    def interrupted(self) -> bool:
        """What the leader said last."""
        return self._wishes[0] != 0

    def beat(self, rank: int) -> None:
        """Say that `rank` is alive (`ranks` for the leader)."""
        self._beats[rank] = time.monotonic()

    def silence(self, rank: int) -> float:
        """Seconds since the last beat of `rank`; 0 before the first. CLOCK_MONOTONIC is one clock for all processes."""
        last = self._beats[rank]
        return 0.0 if last == 0.0 else time.monotonic() - last


def _reserve(descriptor: int, size: int) -> None:
    """Raises OSError where there is no room: a full /dev/shm would else be a bus error later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS
        os.ftruncate(descriptor, size)


def _load_syscall() -> "ctypes._NamedFuncPointer | None":
    if _FUTEX is None or platform.system() != "Linux":
        return None
    return ctypes.CDLL(None, use_errno=True).syscall


_syscall = _load_syscall()
_patience = _Timespec(0, int(_SLICE_SECONDS * 1e9))


def _sleep(address: int, seen: int) -> None:
    """Until the word at `address` is no longer `seen`, or a slice of time is over."""
    if _syscall is None:
        time.sleep(0.0002)
        return
    _syscall(_FUTEX, ctypes.c_void_p(address), _WAIT, seen, ctypes.byref(_patience), None, 0)


def _wake(address: int) -> None:
    if _syscall is not None:
        _syscall(_FUTEX, ctypes.c_void_p(address), _WAKE, _ALL, None, None, 0)
