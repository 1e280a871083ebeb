"""A gang of processes on this machine, without Ray: for the offline entry, benchmarks and tests.

Each rank is a Python of its own that runs this module and nothing of the caller's: a script needs no guard around what
makes a gang, and a notebook or standard input can make one.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from actors.channel import Alive
from actors.heart import Beating
from actors.messages import Assignment, ShardFacts
from actors.quiet import Quiet
from cluster.errors import ReplicaLost, StrataError

_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 0.1  # how often ranks that load are looked at
_BEGIN = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from actors.local import run; run(int(sys.argv[2]))"


class Processes:
    """A launcher that starts one process a rank and talks to each over a pipe (never per step)."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._pipes: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._closing = False

    def load(self, channel: str, rendezvous: str, starting: Alive) -> Sequence[ShardFacts]:
        for rank in range(self._assignment.ranks):
            ours, theirs = Pipe()
            with theirs:
                self._processes.append(_start(theirs.fileno()))
            self._pipes.append(ours)
            ours.send((_of_rank(self._assignment, rank, rendezvous), channel))
        facts: dict[int, ShardFacts] = {}
        while len(facts) < len(self._pipes):
            waiting = [pipe for rank, pipe in enumerate(self._pipes) if rank not in facts]
            for pipe in wait(waiting, _LOOK_SECONDS):
                rank = self._pipes.index(pipe)  # type: ignore[arg-type]
                facts[rank] = self._answer(rank)
            starting()
        return [facts[rank] for rank in sorted(facts)]

    def serve(self, blocks: int, context_tokens: int, end_tokens: tuple[int, ...], quiet: Quiet) -> None:
        for pipe in self._pipes:
            pipe.send((blocks, context_tokens, end_tokens))
        threading.Thread(target=self._watch, args=(quiet, list(self._pipes)), name="watch", daemon=True).start()

    def close(self) -> None:
        self._closing = True
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._processes = [], []

    def _answer(self, rank: int) -> ShardFacts:
        try:
            answer = self._pipes[rank].recv()
        except (EOFError, ConnectionResetError):
            problem = f"rank {rank} ended while it loaded; its error is printed above"
            raise ReplicaLost(self._assignment.model, problem) from None
        if isinstance(answer, StrataError):
            raise answer
        facts: ShardFacts = answer
        return facts

    def _watch(self, quiet: Quiet, pipes: list[Connection]) -> None:
        """A rank that serves says nothing more: what comes over its pipe is its end."""
        ended = wait(pipes)
        if not self._closing:
            quiet.problem = f"rank {pipes.index(ended[0])} ended"  # type: ignore[arg-type]


def _start(pipe: int) -> "subprocess.Popen[bytes]":
    """A rank's process. Its standard input says nothing and ends with us."""
    command = [sys.executable, "-c", _BEGIN, json.dumps(sys.path), str(pipe)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[pipe])  # noqa: S603 — our own interpreter and module


def _of_rank(assignment: Assignment, rank: int, rendezvous: str) -> Assignment:
    device = f"cuda:{rank}" if assignment.device == "cuda" else assignment.device
    return replace(assignment, rank=rank, device=device, rendezvous=rendezvous if assignment.ranks > 1 else None)


def run(descriptor: int) -> None:
    """The life of one rank's process, told over the pipe `descriptor`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever waits for the gang, which goes on living
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe = Connection(descriptor)
    assignment, channel = pipe.recv()
    beating = Beating(channel, assignment.rank, assignment.ranks)
    from actors.shard import Shard  # noqa: PLC0415 — torch, only here

    shard = Shard(assignment)
    try:
        pipe.send(shard.load())
    except StrataError as error:
        pipe.send(error)
        return
    with beating as mine:
        shard.serve(mine, *pipe.recv())


def _die_with_parent() -> None:
    """A parent that is killed cannot say goodbye."""
    os.read(0, 1)
    os._exit(1)
