"""Try a freshly loaded model: is what it caches all that it remembers, and does padding leave it alone?

An architecture may look like any other and still mix tokens in a way that no key-value cache holds. A few tokens
tell: in one piece, in chunks, one by one, and beside a longer neighbour they must give the same logits.
"""

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
    model.allocate(8, BLOCK)
    whole = model.forward(_batch([(tokens, 0, [5, 0, 6])], 0))
    half = len(tokens) // 2
    if half:
        model.forward(_batch([(tokens[:half], 0, [1, 2, 3])], 0))
        pieces = model.forward(_batch([(tokens[half:-1], half, [1, 2, 3])], 0))
        pieces = model.forward(_batch([(tokens[-1:], len(tokens) - 1, [1, 2, 3])], 1))
        if _differ(whole, pieces) > tolerance:
            raise unsupported(model.config, "remembers more of a prompt than keys and values")
        model.forward(_batch([(tokens[:half], 0, [4, 7])], 0))
        short = model.forward(_batch([(tokens[half : half + 1], half, [4, 7])], 1))
        both = _batch([(tokens[-1:], len(tokens) - 1, [1, 2, 3]), (tokens[half : half + 1], half, [4, 7])], 2)
        model.padded = _differ(torch.cat((whole, short)), model.forward(both)) <= tolerance
    model.layers = []


def _differ(left: torch.Tensor, right: torch.Tensor) -> float:
    """The largest difference, in units of how far logits spread."""
    spread = left.std().clamp(min=1e-6)
    return float((left - right).abs().max() / spread)


def _batch(work: list[tuple[list[int], int, list[int]]], decodes: int) -> Batch:
    """A batch of (tokens, how many come before them, blocks); the last row of each is wanted."""
    starts = [0]
    for tokens, _, _ in work:
        starts.append(starts[-1] + len(tokens))
    spots = [(place, blocks) for tokens, past, blocks in work for place, blocks in _places(tokens, past, blocks)]
    contexts = [past + len(tokens) for tokens, past, _ in work]
    return Batch(
        tokens=torch.tensor([token for tokens, _, _ in work for token in tokens]),
        positions=torch.tensor([place for place, _ in spots]),
        slots=torch.tensor([blocks[place // BLOCK] * BLOCK + place % BLOCK for place, blocks in spots]),
        starts=torch.tensor(starts, dtype=torch.int32),
        contexts=torch.tensor(contexts, dtype=torch.int32),
        tables=torch.tensor([[*blocks, 0, 0][:3] for _, _, blocks in work], dtype=torch.int32),
        rows=torch.tensor(starts[1:]) - 1,
        decodes=decodes,
        longest_query=max(len(tokens) for tokens, _, _ in work),
        longest_context=max(contexts),
        block_tokens=BLOCK,
    )


def _places(tokens: list[int], past: int, blocks: list[int]) -> list[tuple[int, list[int]]]:
    return [(place, blocks) for place in range(past, past + len(tokens))]
