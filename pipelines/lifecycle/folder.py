"""The Hugging Face folder that a training run leaves and that the engine serves."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from pipelines.lifecycle.conversation import END, PAD
from pipelines.lifecycle.decoder import Decoder, Shape
from pipelines.lifecycle.tokenizer import write_tokenizer


def write_model(model: Decoder, shape: Shape, tokenizer: Tokenizer, folder: Path) -> None:
    """Weights in bfloat16 with their configuration, tokenizer and chat template; the weights last, by renaming."""
    write_tokenizer(tokenizer, folder, shape.context_tokens)
    pad, end = (tokenizer.encode(mark).ids[0] for mark in (PAD, END))
    write_json(folder / "config.json", shape.hugging_face(pad, end))
    generation = {"do_sample": False, "eos_token_id": [end, pad], "pad_token_id": pad, "max_new_tokens": 256}
    write_json(folder / "generation_config.json", generation)
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()
    }
    part = folder / "model.safetensors.part"
    save_file(weights, part, metadata={"format": "pt"})
    part.chmod(0o644)  # safetensors writes 0600
    part.replace(folder / "model.safetensors")


def write_json(path: Path, value: object) -> None:
    """`value` as readable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
