"""One engine in a process of its own, spoken to by JSON lines and stopped while another one computes.

Knows processes. Knows neither engines nor what is measured.
"""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.peers.workload import Order

LOOK_SECONDS = 0.3
IDLE_SHARE = 0.1  # of a core: an engine that does less has nothing left to do


class EngineFailed(Exception):
    """An engine's process ended, said something else, or took longer than it may; with its last words."""


class Engine:
    """A process that serves `workload`'s lines. Raises EngineFailed from every call."""

    def __init__(self, name: str, command: Sequence[str], surroundings: dict[str, str], folder: Path) -> None:
        self._name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command, cwd=folder, env=surroundings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            start_new_session=True,
        )  # fmt: skip
        self._rest = b""
        self._begun = time.perf_counter()

    def load(self, order: Order, seconds: float) -> tuple[dict, float]:
        """(versions, seconds from the start of the process, its imports included, until it could serve)."""
        answer = self._ask({"load": asdict(order)}, seconds)
        return answer["versions"], time.perf_counter() - self._begun

    def generate(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, seconds: float
    ) -> tuple[list[list[int]], float]:
        """(the tokens, seconds inside the process). Any other number of tokens than asked for is a failure."""
        answer = self._ask({"prompts": prompts, "new_tokens": new_tokens}, seconds)
        lengths = [len(tokens) for tokens in answer["tokens"]]
        if lengths != [new_tokens] * len(prompts):
            raise EngineFailed(
                f"{self._name} made {lengths[:4]}... tokens where {len(prompts)} times {new_tokens} were asked for"
            )
        return answer["tokens"], answer["seconds"]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def pause(self) -> None:
        """Nothing of it runs, no thread that waits by spinning, either, until the next call."""
        self._signal(signal.SIGSTOP)

    def rest(self, seconds: float) -> None:
        """Let it end what it does unasked, a second or so, as between the requests of a server; then stop it."""
        self._signal(signal.SIGCONT)
        until, before = time.monotonic() + seconds, None
        with suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            while time.monotonic() < until:
                used = sum(process.cpu_times()[:2])
                if before is not None and used - before < IDLE_SHARE * LOOK_SECONDS:
                    break
                before = used
                time.sleep(LOOK_SECONDS)
        self.pause()

    def peak_mb(self) -> float:
        """The most resident memory that the process and its children ever had, each for itself: shared libraries,
        mapped files and KV cache included."""
        try:
            process = psutil.Process(self._process.pid)
            return sum(_peak(one.pid) for one in (process, *process.children(recursive=True)))
        except psutil.Error:
            return 0.0

    def close(self) -> None:
        """End it and all that it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, what: dict, seconds: float) -> dict:
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineFailed(self._last_words()) from None
        answer = json.loads(self._line(seconds))
        self.pause()
        return answer

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise EngineFailed(f"{self._name} no answer within {seconds:.0f} s")
            read = os.read(self._process.stdout.fileno(), 1 << 20)
            if not read:
                raise EngineFailed(self._last_words())
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_words(self) -> str:
        status = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line] or lines
        return f"{self._name} ended with {status}: {errors[-1][:300] if errors else 'no word'}"

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended; who reads from it next is told
            os.killpg(self._process.pid, number)


def _peak(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024 if "VmHWM:" in status else 0.0
