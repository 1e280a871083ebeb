"""The training loop of one worker: DeepSpeed steps the decoder over packed rows.

This is the function that Ray Train calls on every worker. It leaves three things in the run's folder: a line per
step in progress.jsonl, DeepSpeed's checkpoints, and the model as a Hugging Face folder.
"""

import json
import shutil
import time
from collections import deque
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
from tokenizers import Tokenizer

from pipelines.lifecycle import collectives
from pipelines.lifecycle.decoder import Decoder
from pipelines.lifecycle.folder import write_json, write_model
from pipelines.lifecycle.packing import pack, step_seed
from pipelines.lifecycle.recipe import Recipe

SMOOTHED_STEPS = 50


def train_worker(config: dict[str, Any]) -> None:
    """Train from the last checkpoint, or from the beginning, to the recipe's last step."""
    recipe, out = Recipe.from_plain(config["recipe"]), Path(config["out"])
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    engine, device = start(recipe)
    first = resume(engine, out)
    rank, saved, losses = engine.global_rank, time.monotonic(), deque[float](maxlen=SMOOTHED_STEPS)
    for step in range(first, recipe.steps):
        began = time.monotonic()
        loss, tokens = one_step(engine, recipe, tokenizer, step, device)
        losses.append(loss)
        if rank == 0:
            note(out, step, loss, recipe.rate(step), tokens * recipe.workers / (time.monotonic() - began))
        last, due = step + 1 == recipe.steps, time.monotonic() - saved >= recipe.checkpoint_seconds
        if last or collectives.agreed(due, device):
            save(engine, recipe, tokenizer, out, step + 1)
            if rank == 0:
                write_json(out / "model" / "training.json", summary(recipe, step + 1, sum(losses) / len(losses)))
            saved = time.monotonic()


def start(recipe: Recipe) -> tuple[Any, torch.device]:
    """DeepSpeed's engine around a fresh decoder."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    model = Decoder(recipe.shape)
    if recipe.compile:
        model.compile(dynamic=False)  # fuses norms, rotations and gates: a third faster on a CPU
    optimizer = MuonWithAuxAdam(groups(model, recipe))
    collectives.join()
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=recipe.deepspeed())
    return engine, torch.device(engine.device)


def groups(model: Decoder, recipe: Recipe) -> list[dict[str, Any]]:
    """Muon (https://kellerjordan.github.io/posts/muon) for the layers' matrices, Adam for embedding and norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    for parameter in model.parameters():
        parameter.use_muon = any(parameter is matrix for matrix in matrices)  # type: ignore[attr-defined]  # ZeRO looks
    muon = {
        "params": matrices,
        "lr": recipe.matrix_rate,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "use_muon": True,
        "ns_method": "standard",  # bfloat16; the other one takes float32 on a CPU
    }
    adam = {
        "params": rest,
        "lr": recipe.learning_rate,
        "betas": recipe.betas,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "use_muon": False,
    }
    return [muon, adam]


def one_step(engine: Any, recipe: Recipe, tokenizer: Tokenizer, step: int, device: torch.device) -> tuple[float, int]:
    """The loss of a step and how many tokens it took on this worker."""
    for group in engine.optimizer.param_groups:
        group["lr"] = recipe.rate(step) * (recipe.matrix_rate if group["use_muon"] else recipe.learning_rate)
    rows, width = recipe.layout(step)
    batch = pack(tokenizer, step_seed(recipe.seed, step, engine.global_rank), rows, width)
    loss = engine(*batch.to(device))
    engine.backward(loss)
    engine.step()
    return float(loss), rows * width


def note(out: Path, step: int, loss: float, rate: float, tokens_per_second: float) -> None:
    """One line of progress."""
    line = {"step": step, "loss": round(loss, 5), "rate": rate, "tokens_per_second": round(tokens_per_second)}
    with (out / "progress.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def save(engine: Any, recipe: Recipe, tokenizer: Tokenizer, out: Path, step: int) -> None:
    """A checkpoint to resume from, and the model as it is now."""
    folder = out / "checkpoints"
    engine.save_checkpoint(str(folder), tag=f"step{step:06d}", client_state={"step": step})
    if engine.global_rank == 0:
        write_model(engine.module, recipe.shape, tokenizer, out / "model")
        for old in sorted(folder.glob("step*"))[: -recipe.kept_checkpoints]:
            shutil.rmtree(old)


def summary(recipe: Recipe, step: int, loss: float) -> dict[str, Any]:
    """What training.json and the model card say of the run."""
    return {
        "steps": step,
        "tokens_per_step": recipe.rows * recipe.width * recipe.workers,
        "loss": round(loss, 5),
        "seed": recipe.seed,
        "workers": recipe.workers,
        "zero_stage": recipe.zero_stage,
        "recipe": recipe.plain(),
    }


def resume(engine: Any, out: Path) -> int:
    """The step to go on with after loading the last checkpoint; 0 where there is none."""
    if not (out / "checkpoints" / "latest").exists():
        return 0
    _, state = engine.load_checkpoint(str(out / "checkpoints"))
    return int(state["step"])
