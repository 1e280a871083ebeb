"""Encoders and decoders of each layout, written from the formats' descriptions and sharing no code with ours.

One number at a time and in plain Python: slow, and hard to get wrong in the same way.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

AWQ_PLACES = (0, 2, 4, 6, 1, 3, 5, 7)  # AutoAWQ: place i of a word holds column AWQ_PLACES[i]


def word(numbers):
    """Unsigned numbers, the first in the lowest bits, as a signed word."""
    bits = 32 // len(numbers)
    total = sum(number << (bits * place) for place, number in enumerate(numbers))
    return total - (1 << 32) if total >= 1 << 31 else total


def packed_rows(numbers, bits):
    """compressed-tensors: [N, K] unsigned, words along each row, zeros behind the last."""
    per = 32 // bits
    rows = [[*row, *[0] * (-len(row) % per)] for row in numbers]
    return torch.tensor(
        [[word(row[at : at + per]) for at in range(0, len(row), per)] for row in rows], dtype=torch.int32
    )


def unpacked_rows(words, bits, columns):
    """The signed numbers of compressed-tensors' words."""
    per, middle = 32 // bits, 1 << (bits - 1)
    return [
        [((row[k // per] % (1 << 32)) >> (bits * (k % per))) % (1 << bits) - middle for k in range(columns)]
        for row in words.tolist()
    ]


def compressed(numbers, scales, bits, zeros=None):
    """weight_packed of signed [N, K] and its companions; zeros are packed along the rows."""
    middle = 1 << (bits - 1)
    raised = (numbers.int() + middle).tolist()
    made = {
        "weight_packed": packed_rows(raised, bits), "weight_scale": scales,
        "weight_shape": torch.tensor(numbers.shape),
    }  # fmt: skip
    if zeros is not None:
        made["weight_zero_point"] = packed_rows((zeros.T.int() + middle).tolist(), bits).T.contiguous()
    return made


def decompressed(tensors, layer, bits):
    """float32 of what a compressed-tensors file holds for `layer`."""
    _, columns = tensors[f"{layer}.weight_shape"].tolist()
    numbers = torch.tensor(unpacked_rows(tensors[f"{layer}.weight_packed"], bits, columns)).float()
    scales = tensors[f"{layer}.weight_scale"].float()
    return numbers * scales.repeat_interleave(columns // scales.shape[1], 1)


def gptq(numbers, scales, bits, zeros, taken_off=1):
    """qweight [K / per word, N], qzeros [G, N / per word] with one taken off, scales [G, N], g_idx [K]."""
    middle = 1 << (bits - 1)
    _, columns = numbers.shape
    group = columns // scales.shape[1]
    stored = (zeros.T.int() + middle - taken_off).tolist()
    return {
        "qweight": packed_rows((numbers.int() + middle).tolist(), bits).T.contiguous(),
        "qzeros": packed_rows([[z % (1 << bits) for z in row] for row in stored], bits),
        "scales": scales.T.contiguous(),
        "g_idx": torch.tensor([k // group for k in range(columns)], dtype=torch.int32),
    }


def awq(numbers, scales, zeros):
    """qweight [K, N / 8] and qzeros [G, N / 8] in AWQ's order, scales [G, N]."""

    def shuffled(rows):
        return packed_rows(
            [[row[at + place] for at in range(0, len(row), 8) for place in AWQ_PLACES] for row in rows], 4
        )

    return {
        "qweight": shuffled((numbers.T.int() + 8).tolist()), "qzeros": shuffled((zeros.T.int() + 8).tolist()),
        "scales": scales.T.contiguous(),
    }  # fmt: skip


def folder(path: Path, layers: dict, quantization: dict | None) -> Path:
    """A folder of these layers' tensors."""
    path.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"{layer}.{name}": tensor.clone() for layer, tensors in layers.items() for name, tensor in tensors.items()},
        path / "model.safetensors",
    )
    (path / "config.json").write_text(json.dumps({"quantization_config": quantization} if quantization else {}))
    return path


def contents(path: Path) -> dict:
    """All tensors of a folder."""
    return {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}
