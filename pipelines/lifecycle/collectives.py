"""DeepSpeed's workers brought together, with the collectives that this installation has compiled already, and agreeing.

DeepSpeed alone would have torch compile them again, half a minute, and wait for ever where a process was killed that
did so before: see `actors.models.compiled`.
"""

import sys
from functools import partial

import deepspeed
import torch

from actors.models.compiled import shm_operator


def join() -> None:
    """Returns when all workers have come."""
    backend = sys.modules["deepspeed.comm.torch"]  # as an attribute it is torch itself
    build = backend.build_shm_op
    vars(backend)["build_shm_op"] = partial(shm_operator, build)
    try:
        deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)
    finally:
        vars(backend)["build_shm_op"] = build


def agreed(wish: bool, device: torch.device) -> bool:
    """What rank 0 wishes, on every rank: all have to ask at the same place.

    For what ranks do together and each would decide by its own clock: a few milliseconds apart, one would write a
    checkpoint and another sum gradients, and both wait for ever.
    """
    said = torch.tensor([int(wish)], device=device)
    torch.distributed.broadcast(said, src=0)
    return bool(said.item())
