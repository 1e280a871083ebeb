"""A gang of processes on this machine, without Ray: for the offline entry, benchmarks and tests."""

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import gettempdir

from actors.messages import Assignment, ShardFacts
from actors.quiet import Quiet
from cluster.errors import ReplicaLost, StrataError

_CLOSE_SECONDS = 5.0


class Processes:
    """A launcher that spawns one process a rank and talks to each over a pipe (never per step)."""

    def __init__(self, assignment: Assignment, ranks: int) -> None:
        meet = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(gettempdir())  # noqa: S108 — one 0600 file
        self._meet = meet / f"strata-meet-{os.getpid()}-{os.urandom(6).hex()}"
        self._assignments = [_of_rank(assignment, rank, ranks, f"file://{self._meet}") for rank in range(ranks)]
        self._pipes: list[Connection] = []
        self._processes: list[mp.process.BaseProcess] = []
        self._closing = False

    def load(self) -> Sequence[ShardFacts]:
        context = mp.get_context("spawn")
        for assignment in self._assignments:
            ours, theirs = context.Pipe()
            process = context.Process(target=_rank, args=(assignment, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        try:
            return [self._answer(rank) for rank in range(len(self._pipes))]
        except StrataError:
            self.close()
            raise
        finally:
            self._meet.unlink(missing_ok=True)

    def serve(self, channel: str, blocks: int, context_tokens: int, end_tokens: tuple[int, ...], quiet: Quiet) -> None:
        for pipe in self._pipes:
            pipe.send((channel, blocks, context_tokens, end_tokens))
        threading.Thread(target=self._watch, args=(quiet,), name="watch", daemon=True).start()

    def close(self) -> None:
        self._closing = True
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(_CLOSE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self._processes = [], []

    def _answer(self, rank: int) -> ShardFacts:
        try:
            answer = self._pipes[rank].recv()
        except EOFError:
            model = self._assignments[rank].model
            raise ReplicaLost(model, f"rank {rank} ended while it loaded; its error is printed above") from None
        if isinstance(answer, StrataError):
            raise answer
        facts: ShardFacts = answer
        return facts

    def _watch(self, quiet: Quiet) -> None:
        sentinels = {process.sentinel: rank for rank, process in enumerate(self._processes)}
        for sentinel in wait(list(sentinels)):
            if not self._closing:
                quiet.problem = f"rank {sentinels[sentinel]} ended"  # type: ignore[index]


def _of_rank(assignment: Assignment, rank: int, ranks: int, rendezvous: str) -> Assignment:
    from dataclasses import replace  # noqa: PLC0415

    device = f"cuda:{rank}" if assignment.device == "cuda" else assignment.device
    return replace(assignment, rank=rank, ranks=ranks, device=device, rendezvous=rendezvous if ranks > 1 else None)


def _rank(assignment: Assignment, pipe: Connection) -> None:
    """The life of one rank's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever waits for the gang, which goes on living
    threading.Thread(target=_die_with_parent, daemon=True).start()
    from actors.shard import Shard  # noqa: PLC0415 — torch, only here

    shard = Shard(assignment)
    try:
        pipe.send(shard.load())
    except StrataError as error:
        pipe.send(error)
        return
    shard.serve(*pipe.recv())


def _die_with_parent() -> None:
    """A parent that is killed cannot say goodbye."""
    parent = mp.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
