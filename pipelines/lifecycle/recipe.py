"""How the starter model is trained: every number in one frozen value."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.lifecycle.decoder import Shape


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of one run. A step is `rows` x `width` tokens on each worker.

    Every `long_every`-th step has rows of the whole context instead, with as many tokens.
    """

    steps: int = 4000
    rows: int = 16
    width: int = 256
    long_every: int = 8
    learning_rate: float = 3e-3
    last_rate: float = 0.02  # of the learning rate, at the end
    warmup_steps: int = 80
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    matrix_rate: float = 0.02  # Muon's rate for the layers' matrices; `learning_rate` is AdamW's for all else
    momentum: float = 0.95
    zero_stage: int = 1
    seed: int = 7
    workers: int = 1
    threads: int = 1
    checkpoint_seconds: float = 300.0
    kept_checkpoints: int = 2
    compile: bool = True
    tokenizer_examples: int = 40_000
    shape: Shape = field(default_factory=Shape)

    def rate(self, step: int) -> float:
        """The part of the learning rates that a step takes: a linear rise, then half a cosine."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.last_rate + (1 - self.last_rate) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    def layout(self, step: int) -> tuple[int, int]:
        """Rows and width of a step."""
        if self.long_every and step % self.long_every == self.long_every - 1:
            return max(1, self.rows * self.width // self.shape.context_tokens), self.shape.context_tokens
        return self.rows, self.width

    def deepspeed(self) -> dict[str, Any]:
        """The configuration that DeepSpeed reads."""
        return {
            "train_micro_batch_size_per_gpu": self.rows,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.0,  # Muon's updates have a norm of their own, which clipping would undo
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": self.zero_stage},
            "zero_allow_untested_optimizer": True,
            "wall_clock_breakdown": False,
            "steps_per_print": 10**9,
        }

    def plain(self) -> dict[str, Any]:
        """As a dict that crosses a process."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Recipe":
        """Back from such a dict."""
        return cls(**{**plain, "betas": tuple(plain["betas"]), "shape": Shape(**plain["shape"])})
