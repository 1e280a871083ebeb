"""A run of a tiny decoder by the real training loop, in a process of its own: `python -m ... OUT STEPS`."""

import os
import sys
from pathlib import Path

from pipelines.lifecycle.decoder import Shape
from pipelines.lifecycle.loop import train_worker
from pipelines.lifecycle.recipe import Recipe
from pipelines.lifecycle.train import prepare

SHAPE = Shape(vocab_size=1024, width=32, layers=2, heads=2, kv_heads=1, head_width=16, hidden=64, context_tokens=256)
RECIPE = Recipe(
    steps=20, rows=8, width=128, long_every=4, warmup_steps=2, compile=False, checkpoint_seconds=0.0,
    kept_checkpoints=100, tokenizer_examples=1000, learning_rate=2e-2, matrix_rate=5e-2, shape=SHAPE,
)  # fmt: skip

if __name__ == "__main__":
    out, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = sys.argv[3]
    prepare(RECIPE, out, resume)
    train_worker({"recipe": RECIPE.plain(), "out": str(out)})
