"""One rank's runner as its assignment describes it: its cache, its sampler, where blocks go that leave the cache.

Puts together what `runner` is given. Decides nothing while it runs.
"""

from typing import TYPE_CHECKING

from actors.engine.grammar import Grammars
from actors.engine.runner import Runner
from actors.engine.sampler import Sampler
from actors.engine.tier import places_in
from actors.engine.tokens import Tokenizer
from actors.messages import Assignment
from actors.models.ahead import Ahead
from actors.models.offload import Offload, offload
from actors.models.parallel import World
from actors.settings import Limits

if TYPE_CHECKING:
    import torch

    from actors.models import Model


def serving(
    model: "Model",
    assignment: Assignment,
    blocks: int,
    context_tokens: int,
    end_tokens: tuple[int, ...],
    world: World | None = None,
    draft: "Model | None" = None,
) -> Runner:
    """One rank's runner over a cache of `blocks`, as its assignment says; only rank 0 samples."""
    limits = assignment.limits
    model.allocate(blocks, limits.block_tokens)
    if draft is not None:
        draft.allocate(blocks, limits.block_tokens)
    models = [model] if draft is None else [model, draft]
    cached = [tensor for one in models for tensor in one.cached()]
    bytes_per_token = sum(one.kv_bytes_per_token for one in models)
    slots = limits.running_sequences
    return Runner(
        model,
        sampler(model.vocab_size, assignment, end_tokens) if assignment.rank == 0 else None,
        slots=slots,
        context_tokens=context_tokens,
        block_tokens=limits.block_tokens,
        device=assignment.device,
        end_tokens=end_tokens,
        world=world,
        speculates=assignment.speculation != "off",
        draft=draft,
        offload=_offload(cached, bytes_per_token, limits),
        ahead=_ahead(cached, limits) if cached[0].device.type == "cpu" else None,
    )


def _ahead(cached: "list[torch.Tensor]", limits: Limits) -> Ahead:
    """What somebody has set aside for a cache may all be taken; what was only found free, as far as it is used."""
    return Ahead(cached, limits.block_tokens, whole=limits.kv_cache_tokens is not None)


def _offload(cached: "list[torch.Tensor]", bytes_per_token: int, limits: Limits) -> Offload | None:
    if not limits.kv_offload_gb:
        return None
    places = places_in(limits.kv_offload_gb, bytes_per_token, limits.block_tokens)
    return offload(cached, limits.block_tokens, places, limits.kv_offload_folder)


def sampler(vocab_size: int, assignment: Assignment, end_tokens: tuple[int, ...]) -> Sampler:
    """Rank 0's sampler, which may hold sequences to a grammar over the folder's tokens."""
    grammars = Grammars(lambda: Tokenizer.from_folder(assignment.path))
    made = Sampler(vocab_size, assignment.limits.running_sequences, end_tokens, grammars)
    made.warm()
    return made
