"""The tensor-parallel world of one shard: who it is and how it adds up with the others.

Knows ranks and two collectives. Knows nothing of models or of what makes the processes.
"""

import io
import logging
import os
import secrets
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from actors.meeting import MARK, SHARED_MEMORY
from actors.models.compiled import shm_operator
from actors.models.kernels.collective import Collective

SHARED_MEMORY_BYTES = 68 * 2**20  # what deepspeed's op writes for a rank: two buffers of 32 MiB, two of 1
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}
SHARED_MEMORY_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

log = logging.getLogger("strata.parallel")


class World(Protocol):
    """`size` shards of one model; this one is `rank`."""

    rank: int
    size: int

    def all_reduce(self, partial: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place where that is possible; same shape and dtype."""
        ...

    def all_gather(self, piece: torch.Tensor) -> torch.Tensor:
        """All ranks' pieces (equal shapes) side by side along the last dimension."""
        ...

    def share(self, values: list[int], count: int) -> list[int]:
        """Rank 0's `count` whole numbers (below 2^24), on all ranks; what the others give is not looked at."""
        ...


class Alone:
    """A world of one."""

    rank = 0
    size = 1

    def all_reduce(self, partial: torch.Tensor) -> torch.Tensor:
        return partial

    def all_gather(self, piece: torch.Tensor) -> torch.Tensor:
        return piece

    def share(self, values: list[int], count: int) -> list[int]:  # noqa: ARG002 - a world's signature
        return values


class DeepSpeedWorld:
    """Ranks joined by deepspeed.comm: NCCL on GPUs; on CPUs gloo, and shared memory where all ranks share a machine.

    The shared-memory sum takes 7 us for 1 x 1024 bfloat16 values where gloo's takes 690, so gathering goes over
    it too. It spins while it waits: a rank that died leaves the others spinning, and whoever watches must end them.
    """

    def __init__(
        self, rank: int, size: int, device: str, shared_memory: bool, collective: Collective | None = None
    ) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._shared_memory = shared_memory
        self.collective = collective  # ours, where all ranks share a machine that runs the kernels

    @classmethod
    def join(cls, rank: int, size: int, init_method: str, device: str = "cpu") -> "DeepSpeedWorld":
        """Meet the other ranks at `init_method` (torch's URL); returns when all have come."""
        backend = "nccl" if device.startswith("cuda") else "gloo"
        if backend == "nccl":
            torch.cuda.set_device(torch.device(device).index or 0)
        # gloo would else listen where the machine's name points, which may be the world
        listen = {} if init_method.startswith("tcp://") and "127.0.0.1" not in init_method else LOOPBACK
        with _environment(**listen):
            dist.init_process_group(backend, init_method=init_method, rank=rank, world_size=size)
        local, roomy, name = _meet(rank, size, _place(init_method))
        names = {"LOCAL_SIZE": str(size if roomy else 0), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": name}
        with _environment(**names, **_tools()), _quiet():
            comm = _deepspeed_comm(device)
            with _operator_on_all_ranks(size):
                comm.init_distributed(
                    dist_backend=backend, auto_mpi_discovery=False, dist_init_required=True, verbose=False
                )
            level = getattr(comm.comm.cdb, "shm_vector_kernel_level", 0)
        dist.barrier()
        collective = None
        if roomy and backend == "gloo":
            _unlink_shared_memory(name, rank)
        if local and backend == "gloo":
            collective = _collective(name, rank, size)
        # level 2 is what its bfloat16 and float16 sums need; with less, deepspeed itself would go over gloo
        return cls(rank, size, device, shared_memory=roomy and backend == "gloo" and level >= 2, collective=collective)

    def all_reduce(self, partial: torch.Tensor) -> torch.Tensor:
        if self.collective is not None and self.collective.takes(partial):
            return self.collective.all_reduce(partial)
        if self._shared_memory and partial.dtype in SHARED_MEMORY_DTYPES:
            partial = partial.contiguous()  # the op would sum a copy and drop it
            return torch.ops.deepspeed.inference_all_reduce_(partial) if partial.numel() else partial
        dist.all_reduce(partial)
        return partial

    def all_gather(self, piece: torch.Tensor) -> torch.Tensor:
        width = piece.shape[-1]
        if self.collective is not None and piece.dtype is torch.float32 and piece.dim() == 2:
            return self.collective.all_gather(piece)
        whole = piece.new_zeros((*piece.shape[:-1], width * self.size))
        whole[..., self.rank * width : (self.rank + 1) * width] = piece
        return self.all_reduce(whole)

    def share(self, values: list[int], count: int) -> list[int]:
        told = values if self.rank == 0 else [0] * count
        if self.collective is not None or self._shared_memory:  # float32 holds every whole number up to 2^24
            summed = self.all_reduce(torch.tensor(told, dtype=torch.float32))
            return [int(value) for value in summed.tolist()]
        row = torch.tensor(told, dtype=torch.int64, device=self.device)
        dist.broadcast(row, src=0)
        return [int(value) for value in row.tolist()]

    def leave(self) -> None:
        """Close the process group."""
        dist.destroy_process_group()


def _collective(name: str, rank: int, size: int) -> Collective | None:
    """Our own shared memory, made by rank 0, mapped by all, and taken out of the file system again."""
    file = SHARED_MEMORY / f"strata_sum_{name}"
    try:
        if rank == 0:
            Collective.make(file, size)
        dist.barrier()
        made = Collective.open(file, rank, size)
        every: list[bool] = [False] * size
        dist.all_gather_object(every, made is not None)
    finally:
        if rank == 0:
            file.unlink(missing_ok=True)
    return made if all(every) else None


def build_collectives() -> None:
    """Compile deepspeed's shared-memory op if that has not been done: about a minute, once per installation."""
    with _quiet(), _environment(**_tools()):
        _deepspeed_comm("cpu")
        shm_operator(_backend_module().build_shm_op)


@contextmanager
def _operator_on_all_ranks(size: int) -> Iterator[None]:
    """deepspeed takes its shared-memory op inside if every rank has it, and goes without it if one has not.

    The op is for what our own collective does not take; without either, sums go over gloo. Neither is worth a gang.
    """
    backend = _backend_module()
    build = backend.build_shm_op
    try:
        module = shm_operator(build)
    except Exception as wrong:  # noqa: BLE001 - what a compiler, a linker or a loader does wrong has no common class
        module = None
        log.warning("deepspeed's shared-memory op is left out: %s", wrong)
    every: list[bool] = [False] * size
    dist.all_gather_object(every, module is not None)
    backend.build_shm_op = lambda: module if all(every) else None
    try:
        yield
    finally:
        backend.build_shm_op = build


def _backend_module() -> Any:
    """From `sys.modules` by name: as an attribute it is torch itself, which deepspeed's comm.py star-imports."""
    return sys.modules["deepspeed.comm.torch"]


def _tools() -> dict[str, str]:
    """A PATH on which torch finds ninja: pip puts it beside the interpreter.

    Nobody promises that a shell, a cluster's node or a Serve replica has that folder on its own PATH.
    """
    return {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])}


def _deepspeed_comm(device: str) -> Any:
    """deepspeed.comm, imported without the lines it prints and logs and without a guess at the accelerator."""
    accelerator = "cuda" if device.startswith("cuda") else "cpu"
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _environment(DS_ACCELERATOR=accelerator):
        warnings.simplefilter("ignore")
        import deepspeed.comm  # noqa: PLC0415 - seconds of import that a world of one never pays
        import deepspeed.comm.torch  # noqa: PLC0415
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed.comm


def _place(init_method: str) -> Path:
    """The folder of a gang that meets in shared memory, which its leader clears away; else shared memory itself."""
    folder = Path(init_method.removeprefix("file://")).parent
    return folder if SHARED_MEMORY in folder.parents else SHARED_MEMORY


def _meet(rank: int, size: int, place: Path) -> tuple[bool, bool, str]:
    """Whether all ranks share one memory file system, whether deepspeed's op has room there, a name of theirs alone.

    In a gang's own folder the mark stays: whoever clears it away then finds what is left of that name.
    """
    names: list[str | None] = [None] * size
    dist.all_gather_object(names, secrets.token_hex(8))
    name = str(names[0])
    mark = place / f"{MARK}{name}"
    there = SHARED_MEMORY.is_dir()
    room = there and shutil.disk_usage(SHARED_MEMORY).free > SHARED_MEMORY_BYTES * size
    if rank == 0 and there:
        mark.touch(mode=0o600)
    dist.barrier()
    seen: list[tuple[bool, bool]] = [(False, False)] * size
    dist.all_gather_object(seen, (mark.exists(), room))
    if rank == 0 and place == SHARED_MEMORY:
        mark.unlink(missing_ok=True)
    local = all(found for found, _ in seen)
    return local, local and all(roomy for _, roomy in seen), name


def _unlink_shared_memory(name: str, rank: int) -> None:
    """Take the op's buffers out of /dev/shm once all have mapped them, so that no death leaves them behind."""
    for file in SHARED_MEMORY.glob(f"*_{name}_{rank}"):
        file.unlink(missing_ok=True)


@contextmanager
def _environment(**names: str) -> Iterator[None]:
    """deepspeed takes these from the environment alone; they are put back after."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """deepspeed and its compiler print to standard output, which belongs to whoever started us."""
    with redirect_stdout(io.StringIO()):
        yield
