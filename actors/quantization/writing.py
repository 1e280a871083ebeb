"""Write a quantized folder beside a float one: rounded matrices, everything else as it was.

Reads and writes one tensor at a time, a file of at most SHARD_BYTES in memory. Knows which matrices are rounded; how
they are laid out is `compressed`'s matter.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from actors.models.checkpoint import Checkpoint
from actors.models.config import read_config, unsupported
from actors.models.family import describe, language_part
from actors.models.weights import prefix_of
from actors.quantization import compressed
from actors.quantization.calibrate import Calibrated
from actors.quantization.declared import declaration
from actors.quantization.landing import MAKER, TEMPLATES
from actors.quantization.rounding import group_for, nearest, to_float8
from cluster.errors import InvalidRequest, ModelInvalid

SHARD_BYTES = 4 * 2**30
TARGETS = ("int8", "int4", "fp8")
DECODER = r"(?:model\.|model\.language_model\.|language_model\.model\.)?"  # and not a vision tower
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj")  # fmt: skip
PROJECTION = re.compile(rf"{DECODER}layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)$")
EMBEDDING = re.compile(rf"{DECODER}embed_tokens$")
HEAD = re.compile(r"(?:.*\.)?lm_head$")
MERGED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # engines multiply them at once: all or none
KEPT = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*")
UNTRUE = ("model.safetensors.index.json", "evaluation.json", "quantization.json")  # of the copy


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rounded to what. `ignore`: parts of layer names, or regular expressions after `re:`.

    `embedding`: round the embedding and the output head as well. `activations`: lay int8 out for W8A8.
    """

    to: str
    ignore: tuple[str, ...] = ()
    embedding: bool = True
    activations: bool = False

    @property
    def bits(self) -> int:
        """Of a value."""
        return 4 if self.to == "int4" else 8

    def rounds(self, layer: str) -> bool:
        """Whether the weight of `layer` is rounded."""
        if PROJECTION.match(layer):
            return not self.ignored(layer)
        # float8 is read as W8A8, which no engine does with an embedding
        wanted = self.embedding and self.to != "fp8" and not self.activations
        return bool(wanted and (EMBEDDING.match(layer) or HEAD.match(layer)) and not self.ignored(layer))

    def ignored(self, layer: str) -> bool:
        """Whether the user wants `layer`, or one that is merged with it, left alone."""
        stem, _, last = layer.rpartition(".")
        names = next(([f"{stem}.{part}" for part in group] for group in MERGED if last in group), [layer])
        return any(_matches(pattern, name) for pattern in self.ignore for name in names)


def scale_type(checkpoint: Checkpoint) -> torch.dtype:
    """What scales are stored in: the type of the weights, 16 bits at most, as readers turn them into it."""
    found = checkpoint.dtype(checkpoint.tensors)
    return found if found in (torch.bfloat16, torch.float16) else torch.bfloat16


def scale_type_of(folder: Path) -> torch.dtype:
    """The same of a folder."""
    return scale_type(Checkpoint(folder))


def check(source: Path) -> None:
    """Raises ModelInvalid unless `source` is a float folder of a family that is quantized here."""
    config = language_part(read_config(source))
    family = describe(config)
    if family is None:
        raise unsupported(config, "runs by transformers' modules, which are not quantized,")
    if declaration(source) is not None:
        raise ModelInvalid(str(source), "is quantized already", "take the float weights")
    checkpoint = Checkpoint(source)
    stem = prefix_of(checkpoint)
    wanted = (f"{stem}layers.{index}.{part}.weight" for index in range(family.layers) for part in PARTS)
    lacking = next((name for name in wanted if name not in checkpoint), None)
    if lacking is not None:
        raise ModelInvalid(str(source), f"the weights lack {lacking}", "fetch all files of the model")


def check_numbers(checkpoint: Checkpoint, name: str, weight: torch.Tensor) -> None:
    """Raises ModelInvalid where a weight holds NaN or an infinity, which no rounding survives."""
    if not bool(torch.isfinite(weight).all()):
        file = checkpoint.tensors[name].file
        raise ModelInvalid(str(file), f"{name} holds NaN or infinities", "fetch the file again, or take other weights")


def needed_bytes(source: Path, plan: Plan) -> int:
    """About what the quantized weights of `source` take, from above."""
    checkpoint, whole = Checkpoint(source), 0
    for name, stored in checkpoint.tensors.items():
        rounded = len(stored.shape) == 2 and plan.rounds(name.removesuffix(".weight"))
        numbers = torch.Size(stored.shape).numel()
        whole += numbers * (plan.bits + 1) // 8 if rounded else stored.bytes
    return whole


def write(
    source: Path,
    target: Path,
    plan: Plan,
    calibrated: Calibrated | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Fill the folder `target`; gives its quantization_config.

    Raises ModelInvalid for a source that cannot be, InvalidRequest for a `target` that holds weights.
    """
    check(source)
    checkpoint, writer = Checkpoint(source), _Writer(source, target, plan, calibrated or Calibrated())
    for done, name in enumerate(sorted(checkpoint.tensors), 1):
        writer.add(checkpoint, name)
        if progress is not None:
            progress(done, len(checkpoint.tensors))
    return writer.finish()


class _Writer:
    def __init__(self, source: Path, target: Path, plan: Plan, calibrated: Calibrated) -> None:
        self.source, self.target, self.plan, self.calibrated = source, target, plan, calibrated
        self.matrices: dict[str, compressed.Matrix] = {}
        self.left: list[str] = []
        self.pending: compressed.Tensors = {}
        self.files: list[dict[str, int]] = []  # of each file, names and bytes
        target.mkdir(parents=True, exist_ok=True)
        if any(target.glob("*.safetensors*")):
            raise InvalidRequest("--out", str(target), "it holds weights already; name another folder")

    def add(self, checkpoint: Checkpoint, name: str) -> None:
        layer = name.removesuffix(".weight")
        shape = checkpoint.shape(name)
        if layer == name or len(shape) != 2 or not self.plan.rounds(layer):
            if layer != name and len(shape) == 2 and not EMBEDDING.match(layer):
                self.left.append(layer)
            self._keep({name: self._float(checkpoint, name)})
            return
        scales = scale_type(checkpoint)
        matrix = self.calibrated.matrices.get(layer)
        if matrix is None:
            weight = self._float(checkpoint, name)
            check_numbers(checkpoint, name, weight)
            if self.plan.to == "fp8":
                found: compressed.Matrix = to_float8(weight, scales)
            else:
                found = nearest(weight, *group_for(self.plan.bits, shape[1]), scales)
        else:
            found = matrix
        self.matrices[layer] = _kind_of(found)
        self._keep(compressed.tensors(layer, found, scales, self.plan.activations))

    def finish(self) -> dict[str, Any]:
        if unused := set(self.calibrated.matrices) - set(self.matrices):
            raise AssertionError(f"{min(unused)} was calibrated and the checkpoint calls it otherwise")
        self._flush()
        many = len(self.files)
        for index in range(many):
            whole = "model.safetensors" if many == 1 else f"model-{index + 1:05d}-of-{many:05d}.safetensors"
            self._part(index).replace(self.target / whole)
        if many > 1:
            self._index(many)
        self._beside()
        if not any(map(HEAD.match, [*self.matrices, *self.left])):
            self.left.append("lm_head")  # a tied head is a Linear as well, and none of its own
        said = compressed.configuration(self.matrices, sorted(self.left), self.plan.activations)
        config = json.loads((self.source / "config.json").read_text("utf-8")) | {"quantization_config": said}
        _write_json(self.target / "config.json", config)
        return said

    def _float(self, checkpoint: Checkpoint, name: str) -> torch.Tensor:
        changed = self.calibrated.floats.get(name)
        whole = checkpoint.piece(name) if checkpoint.shape(name) else _scalar(checkpoint, name)
        return whole if changed is None else changed.to(whole.dtype)

    def _keep(self, tensors: compressed.Tensors) -> None:
        size = sum(t.numel() * t.element_size() for t in self.pending.values())
        if self.pending and size + sum(t.numel() * t.element_size() for t in tensors.values()) > SHARD_BYTES:
            self._flush()
        self.pending |= {name: tensor.contiguous() for name, tensor in tensors.items()}

    def _flush(self) -> None:
        part = self._part(len(self.files))
        try:
            save_file(self.pending, part, metadata=MAKER)
        except (OSError, SafetensorError) as error:
            raise InvalidRequest("--out", str(self.target), f"a place that can hold it ({error})") from error
        part.chmod(0o644)  # safetensors writes 0600
        self.files.append({name: tensor.numel() * tensor.element_size() for name, tensor in self.pending.items()})
        self.pending = {}

    def _part(self, index: int) -> Path:
        return self.target / f"{index}.part"

    def _index(self, many: int) -> None:
        names = {
            name: f"model-{index + 1:05d}-of-{many:05d}.safetensors"
            for index, file in enumerate(self.files)
            for name in file
        }
        total = sum(sum(file.values()) for file in self.files)
        _write_json(
            self.target / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": names}
        )

    def _beside(self) -> None:
        """Tokenizer, templates and the licence; not what was said of the float model's quality."""
        if self.source.resolve() == self.target.resolve():
            return
        for pattern in KEPT:
            for file in self.source.glob(pattern):
                if file.name not in UNTRUE:
                    shutil.copyfile(file, self.target / file.name)
        if (self.source / TEMPLATES).is_dir():
            shutil.copytree(self.source / TEMPLATES, self.target / TEMPLATES)


def _kind_of(matrix: compressed.Matrix) -> compressed.Matrix:
    """The same without its memory: enough to describe it."""
    if isinstance(matrix, tuple):
        return (matrix[0][:0], matrix[1][:0])
    return matrix.rows(0, 0)


def _scalar(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    made = torch.empty((), dtype=checkpoint.dtype([name]))
    checkpoint.read(name, made, ())
    return made


def _matches(pattern: str, layer: str) -> bool:
    return bool(re.search(pattern[3:], layer)) if pattern.startswith("re:") else pattern in layer


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    """What all tensors of a folder take."""
    return sum(stored.bytes for stored in Checkpoint(folder).tensors.values())


def float32_bytes(folder: Path) -> int:
    """What the tensors of a float folder would take in float32."""
    shapes: Iterable[tuple[int, ...]] = (stored.shape for stored in Checkpoint(folder).tensors.values())
    return 4 * sum(torch.Size(shape).numel() for shape in shapes)
