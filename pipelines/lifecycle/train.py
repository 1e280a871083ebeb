"""Train the starter model: `python -m pipelines.lifecycle.train --out DIR`.

Owns the command and the Ray Train job around `loop.train_worker`. Starts a Ray of its own, never joins one.
"""

import argparse
import os
import secrets
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cluster.errors import ExtraMissing
from cluster.loopback import LOOPBACK_NODE
from pipelines.lifecycle.curve import write_curve
from pipelines.lifecycle.progress import follow
from pipelines.lifecycle.recipe import Recipe
from pipelines.lifecycle.tokenizer import train_tokenizer

RETRIES = 3
# A Ray of our own on loopback, which must neither run its workers at niceness 15 (its default, which starves a long run
# on a busy machine) nor end them because others fill the memory.
ALONE = {
    **LOOPBACK_NODE,
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",
}
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> None:
    """Read the flags and train."""
    flags = parser().parse_args(arguments)
    given = {name: value for name, value in vars(flags).items() if value is not None}
    out, resume = Path(given.pop("out")).resolve(), given.pop("resume")
    for name, value in {**ALONE, "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
        os.environ.setdefault(name, value)  # of this process, which trains and ends; Ray reads it when it is imported
    run(replace(Recipe(), **given), out, resume=resume)


def parser() -> argparse.ArgumentParser:
    """The flags; whatever is not given is the recipe's."""
    flags = argparse.ArgumentParser(prog="python -m pipelines.lifecycle.train", description=__doc__)
    flags.add_argument("--out", required=True, help="the run's folder; the model is written to OUT/model")
    flags.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    flags.add_argument("--steps", type=int)
    flags.add_argument("--rows", type=int, help="rows of 256 tokens in a step, on each worker")
    flags.add_argument("--workers", type=int)
    flags.add_argument("--threads", type=int, help="threads of a worker on a CPU")
    flags.add_argument("--seed", type=int)
    flags.add_argument("--learning-rate", type=float)
    flags.add_argument("--matrix-rate", type=float)
    flags.add_argument("--warmup-steps", type=int)
    flags.add_argument("--checkpoint-seconds", type=float)
    flags.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    return flags


def run(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    """Train by `recipe` into `out`; the folder of the model."""
    prepare(recipe, out, resume)
    progress, done = out / "progress.jsonl", threading.Event()
    seen = progress.stat().st_size if progress.exists() else 0
    watcher = threading.Thread(target=follow, args=(progress, recipe.steps, done, seen), daemon=True)
    watcher.start()
    try:
        fit(recipe, out)
    finally:
        done.set()
        watcher.join()
    write_curve(progress, out / "model" / "loss_curve.svg")
    return out / "model"


def prepare(recipe: Recipe, out: Path, resume: bool) -> None:
    """The run's folder with its tokenizer, emptied of an earlier run's progress unless that goes on."""
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        (out / "progress.jsonl").unlink(missing_ok=True)
        (out / "checkpoints" / "latest").unlink(missing_ok=True)
    if resume and (out / "tokenizer.json").exists():
        return
    tokenizer: Tokenizer = train_tokenizer(recipe.shape.vocab_size, recipe.seed, recipe.tokenizer_examples)
    tokenizer.save(str(out / "tokenizer.json"))


def fit(recipe: Recipe, out: Path) -> None:
    """The Ray Train job; a worker that dies is started again and goes on from the last checkpoint."""
    import ray  # noqa: PLC0415  after the environment that it reads on import
    import torch  # noqa: PLC0415

    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
        from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415
    except ImportError:
        sys.exit(str(ExtraMissing("training", "train")))

    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(prefix="strata-train-") as scratch:
        ray.init(
            address="local",
            num_cpus=recipe.workers * recipe.threads + 1,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 2**20,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
            _temp_dir=scratch,
        )
        try:
            TorchTrainer(
                work,
                train_loop_config={"recipe": recipe.plain(), "out": str(out)},
                torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=recipe.workers,
                    use_gpu=gpu,
                    resources_per_worker={"GPU": 1} if gpu else {"CPU": recipe.threads},
                ),
                run_config=RunConfig(
                    name="starter", storage_path=str(out / "ray"), failure_config=FailureConfig(max_failures=RETRIES)
                ),
            ).fit()
        finally:
            ray.shutdown()


def work(config: dict[str, Any]) -> None:
    """What Ray Train calls on each worker. DeepSpeed is imported there and not by the command."""
    from pipelines.lifecycle.loop import train_worker  # noqa: PLC0415

    train_worker(config)


if __name__ == "__main__":
    main()
