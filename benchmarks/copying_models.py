"""A target that copies long pieces of its question, at the size of a real small model, and a small draft beside it.

    python -m benchmarks.copying_models [--seconds S]

The starter model learns the two tasks of `benchmarks.copying` in a few hundred steps; the draft is its embedding and
first four layers, trained on the same stream. What it has learnt then gets the shape of a model of 125 M parameters:
wider matrices whose further rows and columns change nothing, and further layers whose output projections are zero. It
computes the same function, and a step of it costs what a step of any model of that shape costs, since no kernel skips a
zero. It stands for the cost of a larger model, not for the skill of one.

Kept in the user's cache, with a checkpoint: `--seconds` stops after so long, and the next call goes on.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from benchmarks.copying import conversations
from pipelines.lifecycle.decoder import Decoder, Shape
from pipelines.lifecycle.folder import write_model
from pipelines.lifecycle.packing import Batch, Piece, encode, predict, step_seed
from pipelines.lifecycle.tokenizer import load_tokenizer

STARTER = Path("models/starter")
CACHE = Path.home() / ".cache" / "strata" / "benchmarks" / "copying"
# That of 125 M parameters in `benchmarks.peers.checkpoint`, with the starter's vocabulary and so two layers more
WIDE = Shape(width=768, layers=17, heads=12, kv_heads=6, head_width=64, hidden=2432)
ROWS, WIDTH = 6, 512


@dataclass(frozen=True, slots=True)
class Course:
    """How one of the two is trained."""

    name: str
    layers: int
    steps: int
    matrix_rate: float
    rate: float

    def share(self, step: int) -> float:
        """The part of the rates that a step takes: a short rise, then half a cosine."""
        return min((step + 1) / 20, 0.02 + 0.49 * (1 + math.cos(math.pi * step / self.steps)))


TARGET = Course("target", 6, 1000, 0.006, 1e-3)
DRAFT = Course("draft", 4, 500, 0.006, 1e-3)


def models(seconds: float = math.inf) -> tuple[Path, Path] | None:
    """The folders of target and draft, trained if need be; None where `seconds` were too short."""
    until = time.monotonic() + seconds
    for course in (TARGET, DRAFT):
        if not (CACHE / course.name / "model.safetensors").exists() and not train(course, until):
            return None
    wide = CACHE / "wide"
    if not (wide / "model.safetensors").exists():
        widen(CACHE / TARGET.name, wide)
    return wide, CACHE / DRAFT.name


def train(course: Course, until: float) -> bool:
    """From the starter's weights, or from the checkpoint; whether it came to its end."""
    tokenizer = load_tokenizer(STARTER)
    shape = replace(Shape(), layers=course.layers)
    model = Decoder(shape)
    model.load_state_dict(
        {
            name: tensor.float()
            for name, tensor in load_file(STARTER / "model.safetensors").items()
            if _held(name, shape)
        }
    )
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    optimizers = (
        torch.optim.Muon(matrices, lr=course.matrix_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=course.rate, betas=(0.9, 0.95), weight_decay=0.0),
    )
    kept = CACHE / f"{course.name}.pt"
    first, lately = 0, []
    if kept.exists():
        first, state, *states = torch.load(kept)
        model.load_state_dict(state)
        for optimizer, old in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(old)
    CACHE.mkdir(parents=True, exist_ok=True)
    for step in range(first, course.steps):
        for optimizer, rate in zip(optimizers, (course.matrix_rate, course.rate), strict=True):
            optimizer.param_groups[0]["lr"] = rate * course.share(step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(*batch(tokenizer, step).to(torch.device("cpu")))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        lately = [*lately[-19:], loss.item()]
        if step % 20 == 19:
            print(f"{course.name}: step {step + 1} of {course.steps}, loss {sum(lately) / len(lately):.4f}", flush=True)
        if time.monotonic() > until:
            torch.save((step + 1, model.state_dict(), *(o.state_dict() for o in optimizers)), kept)
            return False
    write_model(model, shape, tokenizer, CACHE / course.name)
    kept.unlink(missing_ok=True)
    return True


def _held(name: str, shape: Shape) -> bool:
    """Whether a model of `shape` has the tensor."""
    parts = name.split(".")
    return "layers" not in parts or int(parts[2]) < shape.layers


def batch(tokenizer: Tokenizer, step: int) -> Batch:
    """`ROWS` rows of `WIDTH` tokens, as full as conversations make them."""
    tokens = np.zeros((ROWS, WIDTH), np.int64)
    segments = np.full((ROWS, WIDTH), -1, np.int64)
    weights = np.zeros((ROWS, WIDTH), np.float32)
    row = filled = 0
    for number, piece in enumerate(_pieces(tokenizer, step_seed(5, step, 0))):
        size = len(piece.tokens)
        if filled + size > WIDTH:
            row, filled = row + 1, 0
            if row == ROWS:
                break
        tokens[row, filled : filled + size] = piece.tokens
        weights[row, filled : filled + size] = piece.weights
        segments[row, filled : filled + size] = number
        filled += size
    return predict(tokens, segments, weights)


def _pieces(tokenizer: Tokenizer, seed: int) -> Iterator[Piece]:
    for said in conversations(seed):
        piece = encode(tokenizer, said)
        if len(piece.tokens) <= WIDTH:
            yield piece


def widen(source: Path, folder: Path) -> None:
    """The model of `source` in the shape `WIDE`, with the same outputs up to rounding.

    The norm of a wider row that is zero elsewhere divides by less: its weight makes up for that.
    """
    small = Shape()
    given = load_file(source / "model.safetensors")
    torch.manual_seed(0)
    with torch.device("meta"):
        names = {name: tuple(tensor.shape) for name, tensor in Decoder(WIDE).state_dict().items()}
    group = WIDE.heads // WIDE.kv_heads
    assert group == small.heads // small.kv_heads, "a query head would look at another key head"
    made = {}
    for name, size in names.items():
        made[name] = wide = torch.zeros(size, dtype=torch.bfloat16)
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            wide.normal_(std=0.02)  # of what they make, nothing is taken on
        if size[-1] == WIDE.head_width and len(size) == 1:
            wide.fill_(1.0)
        held = given.get(name)
        if held is None:
            continue
        if held.dim() == 1:
            factor = 1.0 if len(held) == WIDE.head_width else math.sqrt(small.width / WIDE.width)
            wide[: len(held)] = held.float() * factor
        else:
            wide[: held.shape[0], : held.shape[1]] = held
            if held.shape[1] == small.width:
                wide[: held.shape[0], small.width :] = 0.0
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    config = json.loads((source / "config.json").read_text())
    end, pad = config["eos_token_id"], config["pad_token_id"]
    (folder / "config.json").write_text(json.dumps(WIDE.hugging_face(pad, end), indent=2))
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=math.inf)
    print(models(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
