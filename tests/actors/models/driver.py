"""Generate greedily by hand-made batches: scattered blocks, chunked prefill, decodes and chunks mixed.

Stands in for the engine, so that models are tested without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import torch

from actors.models import Model
from actors.models.batch import Batch
from actors.models.parallel import Alone, World


@dataclass
class Running:
    """One sequence under way."""

    tokens: list[int]
    blocks: list[int]
    prompt: int
    done: int = 0  # tokens whose keys and values are in the cache

    @property
    def emitted(self) -> list[int]:
        return self.tokens[self.prompt :]


@dataclass
class Driver:
    """Runs prompts together; `chunk` bounds a prefill chunk, `seed` scatters blocks and staggers arrivals.

    Of several ranks the first draws, as only its logits are complete.
    """

    model: Model
    block_tokens: int = 16
    chunk: int = 37
    seed: int = 0
    world: World = field(default_factory=Alone)
    steps: list[tuple[int, int]] = field(default_factory=list)  # decodes and chunks of each step

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """The greedy continuation of each prompt, `new_tokens` long."""
        random = Random(self.seed)
        needs = [-(-(len(prompt) + new_tokens) // self.block_tokens) for prompt in prompts]
        free = list(range(sum(needs) + 3))
        random.shuffle(free)
        self.model.allocate(len(free), self.block_tokens)
        waiting = [
            Running(list(prompt), [free.pop() for _ in range(need)], len(prompt))
            for prompt, need in zip(prompts, needs, strict=True)
        ]
        every, live = list(waiting), []
        while waiting or live:
            if waiting and (not live or random.random() < 0.5):
                live.append(waiting.pop(random.randrange(len(waiting))))
            self._step(live, random)
            live = [running for running in live if len(running.emitted) < new_tokens]
        return [running.emitted for running in every]

    def _step(self, live: list[Running], random: Random) -> None:
        decodes = [r for r in live if len(r.tokens) - r.done == 1]
        chunks = [r for r in live if len(r.tokens) - r.done > 1]
        self.steps.append((len(decodes), len(chunks)))
        takes = [1] * len(decodes) + [min(len(r.tokens) - r.done, random.randint(1, self.chunk)) for r in chunks]
        chosen = decodes + chunks
        logits = self.model.forward(plan(chosen, takes, len(decodes), self.block_tokens))
        assert logits.dtype is torch.float32
        for running, take in zip(chosen, takes, strict=True):
            running.done += take
        ended = [running for running in chosen if running.done == len(running.tokens)]
        assert len(logits) == len(ended)
        drawn = []
        if self.world.rank == 0:
            assert logits.shape[1] == self.model.vocab_size
            drawn = logits.argmax(-1).tolist()
        for running, token in zip(ended, self.world.share(drawn, len(ended)), strict=True):
            running.tokens.append(token)


def plan(chosen: Sequence[Running], takes: Sequence[int], decodes: int, block_tokens: int) -> Batch:
    """The batch in which each of `chosen` computes its next `takes` tokens."""
    tokens, positions, slots, starts, contexts, rows = [], [], [], [0], [], []
    width = max(len(running.blocks) for running in chosen)
    for running, take in zip(chosen, takes, strict=True):
        span = range(running.done, running.done + take)
        tokens += running.tokens[span.start : span.stop]
        positions += span
        slots += [running.blocks[p // block_tokens] * block_tokens + p % block_tokens for p in span]
        starts.append(len(tokens))
        contexts.append(span.stop)
        if span.stop == len(running.tokens):
            rows.append(len(tokens) - 1)
    return Batch(
        tokens=torch.tensor(tokens),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        starts=torch.tensor(starts, dtype=torch.int32),
        contexts=torch.tensor(contexts, dtype=torch.int32),
        tables=torch.tensor([r.blocks + [0] * (width - len(r.blocks)) for r in chosen], dtype=torch.int32),
        rows=torch.tensor(rows, dtype=torch.int64),
        decodes=decodes,
        longest_query=max(takes),
        longest_context=max(contexts),
        block_tokens=block_tokens,
    )
