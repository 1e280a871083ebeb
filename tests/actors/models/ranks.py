"""Processes that load checkpoint after checkpoint together; starting them is dearer than all they do."""

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Ranks:
    """A world of them. `ask` gives what each of them answers; an exception of theirs is raised here.

    `crowded`: in a container whose shared memory has no room for deepspeed's op, which one rank could not even load.
    """

    def __init__(self, folder: Path, size: int, crowded: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.ends, self.processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            given = (rank, size, f"file://{folder}/meet", crowded, theirs)
            process = context.Process(target=serve, args=given, daemon=True)
            process.start()
            self.ends.append(ours)
            self.processes.append(process)

    def ask(self, what: str, *arguments: Any) -> list[Any]:
        for end in self.ends:
            end.send((what, arguments))
        answers = [end.recv() for end in self.ends]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def close(self) -> None:
        for end in self.ends:
            end.send(("stop", ()))
        for process in self.processes:
            process.join()


def serve(rank: int, size: int, meeting: str, crowded: bool, end: Connection) -> None:
    """A rank's process."""
    import warnings

    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    from actors.models import parallel

    os.environ["PATH"] = "/usr/bin:/bin"  # a shell that never heard of our virtual environment, where ninja is
    if crowded:
        parallel.SHARED_MEMORY_BYTES = 2**60
        if rank:
            parallel.shm_operator = fail
    world = parallel.DeepSpeedWorld.join(rank, size, meeting)
    actions = {"generate": generate, "collect": collect, "sums": sums, "share": share}
    while True:
        what, arguments = end.recv()
        if what == "stop":
            break
        try:
            end.send(actions[what](world, *arguments))
        except Exception as error:  # noqa: BLE001 - raised again where the question came from
            end.send(error)
    world.leave()


def fail(_build: Any) -> None:
    raise RuntimeError("Unable to JIT load the deepspeed_shm_comm op")


def generate(world: Any, path: Path, prompts: list[list[int]], new_tokens: int, chunk: int = 37) -> dict[str, Any]:
    from actors.models import load
    from tests.actors.models.driver import Driver

    model = load(path, dtype="float32", world=world)
    made = Driver(model, chunk=chunk, world=world).generate(prompts, new_tokens)
    return {"answers": made, "kv_bytes": model.kv_bytes_per_token, "weight_bytes": weight_bytes(model)}


def weight_bytes(model: Any) -> int:
    """What the weights of this rank take."""
    if hasattr(model, "module"):
        return sum(p.numel() * p.element_size() for p in model.module.parameters())
    seen = {id(model.embedding): model.embedding, id(model.head.weight): model.head.weight}
    for layer in model.layers:
        for linear in (layer.qkv, layer.output, layer.gate_up, layer.down):
            seen[id(linear.weight)] = linear.weight
    memories = [getattr(weight, "memory", weight) for weight in seen.values()]  # packed or not
    return sum(memory.numel() * memory.element_size() for memory in memories)


def collect(world: Any) -> dict[str, Any]:
    """Both collectives, for each dtype and for shapes that are empty, odd and larger than the op's buffers."""
    import torch

    found: dict[str, Any] = {
        "shared_memory": world._shared_memory,
        "ours": world.collective is not None,
        "left_behind": [p.name for p in Path("/dev/shm").glob("*deepspeed*")],
    }
    whole = world.size * (world.size + 1) // 2
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int64):
        for shape in ((0, 8), (1, 1), (3, 7), (512, 1024), (33, 1_000_000 // 32)):
            mine = torch.full(shape, world.rank + 1).to(dtype)
            total = world.all_reduce(mine)
            side = world.all_gather(torch.full(shape, world.rank).to(dtype))
            assert total.shape == shape and bool((total == whole).all()), (dtype, shape)
            assert side.shape == (shape[0], world.size * shape[1]), (dtype, shape)
            for rank, part in enumerate(side.split(shape[1], dim=1)):
                assert bool((part == rank).all()), (dtype, shape)
    turned = torch.full((4, 6), world.rank + 1.0).t()
    assert bool((world.all_reduce(turned) == whole).all()), "a tensor that does not lie in one piece"
    return found


def share(world: Any, values: list[int], ways: list[str]) -> list[list[int]]:
    """What each way of telling brings here; without ours it goes over deepspeed's op, without that over gloo."""
    ours, theirs = world.collective, world._shared_memory
    heard = []
    try:
        for way in ways:
            world.collective = ours if way == "ours" else None
            world._shared_memory = theirs and way != "gloo"
            heard.append(world.share(values if world.rank == 0 else [], len(values)))
    finally:
        world.collective, world._shared_memory = ours, theirs
    return heard


def sums(world: Any, path: Path, size: int, calls: int, patience: int, start: int) -> str | None:
    """`calls` sums and gathers of the first `size` ranks against plain ones; a digest of all results.

    `start`: how many parts have crossed already, as far as the shared counters say.
    """
    import hashlib
    import struct

    import torch
    import torch.distributed as dist

    from actors.models.kernels.collective import Collective

    if world.rank == 0:
        Collective.make(path, size)
    dist.barrier()
    if world.rank >= size:
        dist.barrier()
        return None
    mine = Collective.open(path, world.rank, size)
    assert mine is not None
    mine._own.patience, mine._own.count = patience, start
    struct.pack_into("<I", mine._memory, 128 * world.rank, start)
    dist.barrier()
    made = torch.Generator().manual_seed(7)
    pool = [torch.randn(700_001, generator=made) * 10 for _ in range(size)]  # every rank knows what each has
    digest = hashlib.sha256()
    lengths = [1, 2, 15, 16, 17, 31, 33, 64, 199, 768, 1000, 1023]
    for call in range(calls):
        long = call % 1000 == 999  # longer than a buffer: 1.2 and 1.4 MB
        length = (300_001 if call % 2000 == 999 else 700_001) if long else lengths[call % len(lengths)]
        dtype = torch.bfloat16 if call % 3 == 0 or length == 700_001 else torch.float32
        parts = [part[call % 101 :][:length].to(dtype) for part in pool]
        if call % 7 == 3 and dtype is torch.float32:
            width = max(1, length // 3)
            parts = [part[: length // width * width].view(-1, width) for part in parts]
            got, wanted = mine.all_gather(parts[world.rank]), torch.cat(parts, dim=1)
        else:
            wanted = parts[0].float()
            for part in parts[1:]:
                wanted = wanted + part.float()
            wanted = wanted.to(dtype)
            got = mine.all_reduce(parts[world.rank].clone())
        assert torch.equal(got, wanted), (call, length, dtype)
        digest.update(got.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
