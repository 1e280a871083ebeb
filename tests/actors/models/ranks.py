"""A pair of processes that load checkpoint after checkpoint together; starting them is dearer than all they do."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SIZE = 2


class Pair:
    """Two ranks. `generate` gives what each of them answers; an exception of theirs is raised here."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.ends, self.processes = [], []
        for rank in range(SIZE):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, f"file://{folder}/meet", theirs), daemon=True)
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


def serve(rank: int, meeting: str, end: Connection) -> None:
    """A rank's process."""
    import warnings

    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    from actors.models.parallel import DeepSpeedWorld

    world = DeepSpeedWorld.join(rank, SIZE, meeting)
    actions = {"generate": generate, "collect": collect}
    while True:
        what, arguments = end.recv()
        if what == "stop":
            break
        try:
            end.send(actions[what](world, *arguments))
        except Exception as error:  # noqa: BLE001 - raised again where the question came from
            end.send(error)
    world.leave()


def generate(world: Any, path: Path, prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    from actors.models import load
    from tests.actors.models.driver import Driver

    model = load(path, dtype="float32", world=world)
    made = Driver(model).generate(prompts, new_tokens)
    return {"answers": made, "kv_bytes": model.kv_bytes_per_token, "weight_bytes": weight_bytes(model)}


def weight_bytes(model: Any) -> int:
    """What the weights of this rank take."""
    if hasattr(model, "module"):
        return sum(p.numel() * p.element_size() for p in model.module.parameters())
    seen = {id(model.embedding): model.embedding, id(model.head.weight): model.head.weight}
    for layer in model.layers:
        for linear in (layer.qkv, layer.output, layer.gate_up, layer.down):
            seen[id(linear.weight)] = linear.weight
    return sum(t.numel() * t.element_size() for t in seen.values())


def collect(world: Any) -> dict[str, Any]:
    """Both collectives, for each dtype and for shapes that are empty, odd and larger than the op's buffers."""
    import torch

    found: dict[str, Any] = {
        "shared_memory": world._shared_memory,
        "left_behind": [p.name for p in Path("/dev/shm").glob("*deepspeed*")],
    }
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int64):
        for shape in ((0, 8), (1, 1), (3, 7), (512, 1024), (33, 1_000_000 // 32)):
            mine = torch.full(shape, world.rank + 1).to(dtype)
            total = world.all_reduce(mine)
            side = world.all_gather(torch.full(shape, world.rank).to(dtype))
            assert total.shape == shape and bool((total == 3).all()), (dtype, shape)
            assert side.shape == (shape[0], 2 * shape[1]), (dtype, shape)
            assert bool((side[:, : shape[1]] == 0).all()) and bool((side[:, shape[1] :] == 1).all()), (dtype, shape)
    turned = torch.full((4, 6), world.rank + 1.0).t()
    assert bool((world.all_reduce(turned) == 3).all()), "a tensor that does not lie in one piece"
    return found
