"""Try a freshly loaded model: is what it caches all that it remembers, and does padding leave it alone?

An architecture may look like any other and still mix tokens in a way that no key-value cache holds. A few tokens
tell: in one piece, in chunks, one by one, and beside a longer neighbour they must give the same logits.
"""

from functools import partial
from typing import TYPE_CHECKING

import torch

from actors.models.batch import Batch
from actors.models.config import unsupported

if TYPE_CHECKING:
    from actors.models.hosted import HostedModel

TOKENS = 9
BLOCK = 4


def check(model: "HostedModel") -> None:
    """Refuse a model whose chunks do not add up; stop padding where it changes results."""
    tolerance = 1e-3 if model.dtype is torch.float32 else 0.3  # routers flip in half precision
    tokens = [(7 * place + 3) % model.vocab_size for place in range(min(TOKENS, model.context_tokens))]
    last, half = len(tokens) - 1, len(tokens) // 2
    model.allocate(8, BLOCK)

    def run(decodes: int, *work: tuple[list[int], int, list[int]]) -> torch.Tensor:
        return model.forward(_batch(list(work), decodes, model.device))

    whole = run(0, (tokens, 0, [5, 0, 6]))
    if half:
        run(0, (tokens[:half], 0, [1, 2, 3]))
        run(0, (tokens[half:-1], half, [1, 2, 3]))
        step = (tokens[-1:], last, [1, 2, 3])
        if _differ(whole, run(1, step)) > tolerance:
            raise unsupported(model.config, "remembers more of a prompt than keys and values")
        run(0, (tokens[:half], 0, [4, 7]))
        other = (tokens[half : half + 1], half, [4, 7])
        short = run(1, other)
        model.padded = model.padded and _differ(torch.cat((whole, short)), run(2, step, other)) <= tolerance
    model.layers = []


def _differ(left: torch.Tensor, right: torch.Tensor) -> float:
    """The largest difference, in units of how far logits spread."""
    spread = left.std().clamp(min=1e-6)
    return float((left - right).abs().max() / spread)


def _batch(work: list[tuple[list[int], int, list[int]]], decodes: int, device: str) -> Batch:
    """A batch of (tokens, how many come before them, blocks); the last row of each is wanted."""
    starts = [0]
    for tokens, _, _ in work:
        starts.append(starts[-1] + len(tokens))
    spots = [(place, blocks) for tokens, past, blocks in work for place, blocks in _places(tokens, past, blocks)]
    contexts = [past + len(tokens) for tokens, past, _ in work]
    whole = partial(torch.tensor, device=device)
    return Batch(
        tokens=whole([token for tokens, _, _ in work for token in tokens]),
        positions=whole([place for place, _ in spots]),
        slots=whole([blocks[place // BLOCK] * BLOCK + place % BLOCK for place, blocks in spots]),
        starts=whole(starts, dtype=torch.int32),
        contexts=whole(contexts, dtype=torch.int32),
        tables=whole([[*blocks, 0, 0][:3] for _, _, blocks in work], dtype=torch.int32),
        rows=whole(starts[1:]) - 1,
        decodes=decodes,
        longest_query=max(len(tokens) for tokens, _, _ in work),
        longest_context=max(contexts),
        block_tokens=BLOCK,
    )


def _places(tokens: list[int], past: int, blocks: list[int]) -> list[tuple[int, list[int]]]:
    return [(place, blocks) for place in range(past, past + len(tokens))]
