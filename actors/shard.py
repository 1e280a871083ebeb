"""One rank of a gang: a process that holds a slice of the model and executes plans until its leader stops.

A plain class; `replica` wraps it in a Ray actor, `local` starts it as a process of its own for the offline entry. Steps
arrive over `channel`: a gang stays on one machine.
"""

import os
import resource
import time
from collections.abc import Callable

import torch

from actors.channel import Alive, Channel
from actors.cores import Cores
from actors.engine.draft_folder import load_draft
from actors.engine.plan import Plan, Result
from actors.engine.runner import Runner
from actors.engine.serving import serving
from actors.messages import Assignment, ShardFacts
from actors.models import load
from actors.models.parallel import Alone, DeepSpeedWorld, World
from actors.quiet import Quiet

LEADER_SILENCE_SECONDS = 30.0


class Shard:
    """Load once, then serve."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._cores = Cores(assignment.cpus) if assignment.device == "cpu" else None

    def load(self, progress: Callable[[int, int], None] | None = None) -> ShardFacts:
        """Join the process group and read this rank's slice. Raises ModelInvalid and its kin."""

        begun, mine = time.perf_counter(), self._assignment
        torch.set_num_threads(mine.cpus)
        world: World = Alone()
        if mine.rendezvous is not None:
            world = DeepSpeedWorld.join(mine.rank, mine.ranks, mine.rendezvous, mine.device)
        self._world = world
        self._model = load(
            mine.path, dtype=mine.dtype, quantization=mine.quantization, kv_cache_dtype=mine.kv_cache_dtype,
            device=mine.device, world=world, progress=progress, deterministic=mine.deterministic,
        )  # fmt: skip
        self._draft = load_draft(mine)
        return ShardFacts(
            mine.rank,
            os.getpid(),
            self._model.vocab_size,
            self._model.context_tokens,
            self._model.kv_bytes_per_token + (self._draft.kv_bytes_per_token if self._draft is not None else 0),
            free_bytes(mine.device),
            self._cores.claimed if self._cores is not None else (),
            time.perf_counter() - begun,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def serve(self, channel: Channel, blocks: int, context_tokens: int, end_tokens: tuple[int, ...]) -> None:
        """Execute plans until the leader closes. Raises ReplicaLost when the leader falls silent."""

        mine = self._assignment
        self._pin()
        runner = serving(self._model, mine, blocks, context_tokens, end_tokens, self._world, self._draft)
        leader = Quiet(channel, range(mine.ranks, mine.ranks + 1), LEADER_SILENCE_SECONDS, mine.model)
        self._serve(runner, channel, leader)

    def _pin(self) -> None:
        """Affinity and OpenMP's thread count belong to a thread, and `load` and `serve` may run on different ones."""
        torch.set_num_threads(self._assignment.cpus)
        if self._cores is not None:
            self._cores.pin()

    def _serve(self, runner: Runner, channel: Channel, leader: Alive) -> None:
        mine = self._assignment
        while True:
            wire = channel.receive_plan(mine.rank, leader)
            if not wire:
                return
            plan = Plan.unpack(wire)
            try:
                result = runner.execute(plan, channel.interrupted)
            except Exception as error:
                if mine.ranks > 1:
                    raise  # the ranks may disagree on what was computed: the gang starts anew
                result = Result(plan.number, [], fault=f"{type(error).__name__}: {error}")
            if result is not None:
                channel.send_result(result.pack(), leader)


def free_bytes(device: str) -> int:
    """Memory that a KV cache could take on `device`."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info()[0])
    with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 — a device file of the kernel's
        fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024
