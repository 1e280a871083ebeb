"""A model whose next token depends on every token that it finds in its paged cache: any mix-up of blocks shows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from actors.engine.admission import Facts
from actors.engine.loop import Engine
from actors.engine.plan import Plan, Result
from actors.engine.runner import Runner
from actors.engine.sampler import Sampler
from actors.models.batch import Batch
from actors.models.offload import offload
from actors.settings import Limits
from cluster.errors import StrataError

VOCAB = 211
END = VOCAB - 1


def next_token(tokens: Sequence[int]) -> int:
    """The rule, computed from the whole sequence at once. Never the end token."""
    total = 7
    for token in tokens:
        total = (total * 31 + token + 1) % 1_000_003
    return total % (VOCAB - 1)


def continuation(prompt: Sequence[int], count: int) -> list[int]:
    """What the model must generate."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class Remembering:
    """The paged cache holds the tokens themselves."""

    vocab_size = VOCAB
    context_tokens = 100_000
    kv_bytes_per_token = 8

    def __init__(self, rule: Callable[[Sequence[int]], int] = next_token) -> None:
        self._rule = rule

    def allocate(self, blocks: int, block_tokens: int) -> None:
        self.cache = np.full(blocks * block_tokens, -1, np.int64)

    def cached(self) -> list[torch.Tensor]:
        return [torch.from_numpy(self.cache)]

    def forward(self, batch: Batch) -> torch.Tensor:
        slots = batch.slots.numpy()
        self.cache[slots] = batch.tokens.numpy()
        starts, contexts, tables = batch.starts.numpy(), batch.contexts.numpy(), batch.tables.numpy()
        logits = torch.zeros(len(batch.rows), VOCAB)
        for out, row in enumerate(batch.rows.tolist()):
            index = int(np.searchsorted(starts, row, side="right")) - 1
            places = np.arange(contexts[index] - (starts[index + 1] - 1 - row))
            homes = tables[index, places // batch.block_tokens] * batch.block_tokens + places % batch.block_tokens
            seen = self.cache[homes]
            assert (seen >= 0).all(), "a key is read that was never written"
            logits[out, self._rule(seen.tolist())] = 4.0
        return logits


class Checked:
    """An executor that sends every plan over the wire format first."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.plans: list[Plan] = []
        self.steps: list[int] = []  # that each plan came to
        self.lost: StrataError | None = None
        self.interrupted = False
        self.during: Callable[[int], None] = lambda steps: None  # what happens after each step of a run but the last

    def check(self) -> None:
        if self.lost is not None:
            raise self.lost

    def interrupt(self, wanted: bool) -> None:
        self.interrupted = wanted

    def execute(self, plan: Plan) -> Result:
        self.plans.append(plan)
        asked = 0

        def interrupted() -> bool:
            nonlocal asked
            asked += 1
            self.during(asked)
            return self.interrupted

        try:
            result = self.runner.execute(Plan.unpack(plan.pack()), interrupted)
        except Exception as error:  # noqa: BLE001 — as a shard does
            result = Result(plan.number, [], fault=f"{type(error).__name__}: {error}")
        assert result is not None
        self.steps.append(result.steps)
        return Result.unpack(result.pack())


class Paced(Engine):
    """An engine whose runs are as long as a test says, not as long as the machine is fast."""

    horizon = 1

    def _horizon(self) -> int:
        return self.horizon


def engine(
    blocks: int = 64,
    end_tokens: tuple[int, ...] = (END,),
    places: int = 0,
    clock: Callable[[], float] = lambda: 0.0,
    **limits: Any,
) -> tuple[Paced, Checked]:
    """A whole engine over the remembering model, with `places` for blocks that leave its cache.

    `clock`: by which a rank measures what it does.
    """
    settled = {"running_sequences": 8, "step_tokens": 32, "block_tokens": 4, "queued_sequences": 1000, **limits}
    made = Limits(**settled)
    model = Remembering()
    model.allocate(blocks, made.block_tokens)
    runner = Runner(
        model,
        Sampler(VOCAB, made.running_sequences, end_tokens),
        slots=made.running_sequences,
        context_tokens=model.context_tokens,
        block_tokens=made.block_tokens,
        end_tokens=end_tokens,
        offload=offload(model.cached(), made.block_tokens, places, None) if places else None,
        clock=clock,
    )
    executor = Checked(runner)
    facts = Facts("remembering", VOCAB, model.context_tokens, blocks, end_tokens, places=places)
    ticks = iter(range(10**9))
    return Paced(executor, facts, made, lambda: float(next(ticks))), executor
