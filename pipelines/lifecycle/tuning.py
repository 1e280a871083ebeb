"""The fine-tuning loop of one worker: DeepSpeed steps any causal model of transformers over encoded conversations.

This is the function that Ray Train calls on every worker. It leaves in the run's folder what `loop` leaves: a line per
step in progress.jsonl, DeepSpeed's checkpoints; and at the end the model, a folder like the one it began with.
"""

import shutil
import time
from collections import deque
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from actors.registry import adapter
from cluster.errors import ModelInvalid
from pipelines.lifecycle import collectives, lora
from pipelines.lifecycle.declared import Train, seconds
from pipelines.lifecycle.examples import batch, order
from pipelines.lifecycle.folder import write_json
from pipelines.lifecycle.loop import SMOOTHED_STEPS, note, resume

LAST_RATE = 0.1  # of the learning rate, at the end
# What a folder says of how its own weights were made and fared: not true of those that are made of them.
STALE = ("training.json", "evaluation.json", "loss_curve.svg", "adapter")


def tune_worker(config: dict[str, Any]) -> None:
    """Train from the last checkpoint, or from the beginning, to the last step, and write the model.

    `config`: the declared `train` in plain values, the folder `base` to begin with, the file `data`, the folder `out`.
    """
    train = Train.model_validate(config["train"])
    base, out = Path(config["base"]), Path(config["out"])
    file = np.load(config["data"])
    data = {name: file[name] for name in ("ends", "tokens", "learnt")}
    engine = start(train, base)
    first, saved, losses = resume(engine, out), time.monotonic(), deque[float](maxlen=SMOOTHED_STEPS)
    for step in range(first, train.steps):
        began = time.monotonic()
        rate = schedule(train, step)
        chosen = order(len(data["ends"]), train.seed, step, train.rows, engine.global_rank, train.workers)
        loss, tokens = one_step(engine, rate * train.learning_rate, batch(data, chosen))
        losses.append(loss)
        if engine.global_rank == 0:
            note(out, step, loss, rate, tokens * train.workers / (time.monotonic() - began))
        last, due = step + 1 == train.steps, time.monotonic() - saved >= seconds(train.checkpoint)
        if last or collectives.agreed(due, engine.device):
            engine.save_checkpoint(str(out / "checkpoints"), tag=f"step{step + 1:06d}", client_state={"step": step + 1})
            saved = time.monotonic()
            if engine.global_rank == 0:
                for old in sorted((out / "checkpoints").glob("step*"))[:-2]:
                    shutil.rmtree(old)
    if engine.global_rank == 0:
        told = {
            "steps": train.steps, "loss": float(np.mean(losses)) if losses else None, "seed": train.seed,
            "examples": len(data["ends"]), "workers": train.workers, "zero_stage": train.zero_stage,
        }  # fmt: skip
        finish(engine.module, train, base, out, told)


def start(train: Train, base: Path) -> Any:
    """DeepSpeed's engine around the model in the folder `base`."""
    torch.manual_seed(train.seed)
    torch.set_num_threads(train.threads)
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    network.train()
    if train.lora is not None:
        lora.adapt(network, train.lora)
    parameters = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=train.learning_rate, weight_decay=train.weight_decay)
    collectives.join()
    engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=settings(train))
    return engine


def settings(train: Train) -> dict[str, Any]:
    """The configuration that DeepSpeed reads."""
    return {
        "train_micro_batch_size_per_gpu": train.rows,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": train.zero_stage},
        "zero_allow_untested_optimizer": True,
        "wall_clock_breakdown": False,
        "steps_per_print": 10**9,
    }


def schedule(train: Train, step: int) -> float:
    """The part of the learning rate that a step takes: a linear rise, then half a cosine."""
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    return LAST_RATE + (1 - LAST_RATE) * (1 + float(np.cos(np.pi * min(1.0, done)))) / 2


def one_step(engine: Any, rate: float, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[float, int]:
    """The loss of a step over what the assistant says, and how many tokens it took on this worker."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    tokens, mask, labels = (torch.from_numpy(array).to(engine.device) for array in rows)
    logits = engine(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
    engine.backward(loss)
    engine.step()
    return float(loss.detach()), int(rows[1].sum())


def finish(network: nn.Module, train: Train, base: Path, out: Path, told: dict[str, Any]) -> None:
    """OUT/model, whole or not at all: the files of `base` with other weights, and what was learnt; OUT/adapter."""
    part = out / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(base, part, ignore=shutil.ignore_patterns(*STALE, "*.safetensors"))
    if train.lora is not None:
        lora.save(network, train.lora, out / "adapter")
        adapter.add(base, out / "adapter", part)
    else:
        replace_weights(network, base, part)
    write_json(part / "training.json", told)
    part.rename(out / "model")


def replace_weights(network: nn.Module, base: Path, into: Path) -> None:
    """The weight files of `base` with the network's values under the same names. Raises ModelInvalid for others."""
    state = network.state_dict()
    for file in sorted(base.glob("*.safetensors")):
        made = {}
        with safe_open(file, framework="pt") as opened:
            form = opened.metadata() or {"format": "pt"}
        for name, old in load_file(file).items():
            new = state.get(name)
            if new is None or new.shape != old.shape:
                remedy = "fine-tune it with lora, or save the model as this transformers has it"
                raise ModelInvalid(str(file), f"its {name} is no weight of the network that trained", remedy)
            made[name] = new.detach().to("cpu", old.dtype).contiguous()
        save_file(made, into / file.name, metadata=form)
        (into / file.name).chmod(0o644)  # safetensors writes 0600
