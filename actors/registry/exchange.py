"""Versions to and from folders of other tools: Hugging Face's, which a version is, and MLflow's model folder.

Knows MLflow's layout (flavor `transformers`: `MLmodel`, the model in `model`, what goes with it in `components`) and
imports nothing of it. Knows no store.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from actors.registry.folder import TOKENIZERS, checked
from actors.registry.pieces import Progress, quietly
from actors.registry.registry import Registry
from cluster.errors import Conflict, InvalidRequest, ModelInvalid

FORMS = ("huggingface", "mlflow")
MLMODEL, MODEL, COMPONENTS = "MLmodel", "model", "components"
OURS = "strata"  # the key of MLflow's free metadata under which a version's own go along
_VERSION = "2.22.0"  # of MLflow: whose layout this is; later ones read it
_WITH_TOKENIZER = ("special_tokens_map.json", "tokenizer_config.json", "added_tokens.json", "chat_template.jinja",
                   "vocab.json", "merges.txt", *TOKENIZERS)  # fmt: skip
_NEEDS = ("transformers", "torch", "safetensors")


@dataclass(frozen=True, slots=True)
class Found:
    """A folder that was looked into: the one with the model, those with what goes with it, and its metadata."""

    form: str
    folder: Path
    beside: tuple[Path, ...]
    metadata: Mapping[str, Any]


def form(text: str) -> str:
    """A name of FORMS. Raises InvalidRequest."""
    if text not in FORMS:
        raise InvalidRequest("--format", text, f"take {' or '.join(FORMS)}")
    return text


def look(folder: Path) -> Found:
    """What kind of folder it is. Raises ModelInvalid for one of MLflow's that holds no transformers model."""
    if not (folder / MLMODEL).is_file():
        return Found("huggingface", folder, (), {})
    said = _mlmodel(folder / MLMODEL)
    flavors = said.get("flavors")
    flavor = flavors.get("transformers") if isinstance(flavors, dict) else None
    if not isinstance(flavor, dict):
        names = ", ".join(map(str, flavors)) if isinstance(flavors, dict) else "none"
        remedy = "log it with mlflow.transformers: other flavors hold pickles or code"
        raise ModelInvalid(str(folder / MLMODEL), f"has no flavor transformers but {names}", remedy)
    inside = _inside(folder, flavor.get("model_binary") or flavor.get("pipeline"), "model_binary")
    parts: Any = flavor.get("components") or []
    if not isinstance(parts, list):
        raise ModelInvalid(str(folder / MLMODEL), "names no list of components", "log the model again")
    beside = tuple(_inside(folder, f"{COMPONENTS}/{name}", "components") for name in parts)
    more = said.get("metadata")
    own = more.get(OURS) if isinstance(more, dict) else None
    return Found("mlflow", inside, beside, own if isinstance(own, dict) else {})


def export(registry: Registry, model: str, name: str, into: Path, form: str, progress: Progress = quietly) -> str:
    """Write a version to the new folder `into`, in one of FORMS; its commit. The folder appears whole or not at all.

    Raises what `Registry.checkout` raises.
    """
    if into.exists():
        raise Conflict(f"the folder {into}", "new", "there")
    scratch = into.parent / f".{into.name}.{secrets.token_hex(4)}"
    try:
        commit = registry.checkout(model, name, scratch, progress)
        if form == "mlflow":
            wrap(scratch, registry.show(model, commit).metadata)
        os.rename(scratch, into)  # noqa: PTH104 - a Path says the same longer
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return commit


def wrap(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Make of a checked out version MLflow's folder of it, in place; equal versions become equal folders."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    names = sorted(path.name for path in folder.iterdir())
    if MODEL in names:
        raise ModelInvalid(str(folder), f"has a file {MODEL}, where MLflow has its folder", "export it as huggingface")
    (folder / MODEL).mkdir()
    for name in names:
        (folder / name).rename(folder / MODEL / name)
    tokenizer = folder / COMPONENTS / "tokenizer"
    tokenizer.mkdir(parents=True)
    for name in _WITH_TOKENIZER:
        if (folder / MODEL / name).is_file():
            shutil.copyfile(folder / MODEL / name, tokenizer / name)
    needs = _requirements(config)
    (folder / MLMODEL).write_text(yaml.safe_dump(_described(config, metadata)), "utf-8")
    (folder / "requirements.txt").write_text("".join(f"{need}\n" for need in needs), "utf-8")
    python = {"python": "3.11", "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(python), "utf-8")
    pip: list[Any] = ["python=3.11", "pip", {"pip": needs}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": pip}
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda), "utf-8")


def _described(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What `MLmodel` says."""
    architectures = config.get("architectures") or ["AutoModelForCausalLM"]
    return {
        "artifact_path": MODEL,
        "flavors": {
            "python_function": {
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.transformers",
                "model_binary": MODEL,
                "python_version": "3.11",
            },
            "transformers": {
                "code": None,
                "components": ["tokenizer"],
                "framework": "pt",
                "instance_type": "TextGenerationPipeline",
                "model_binary": MODEL,
                "pipeline_model_type": architectures[0],
                "source_model_name": MODEL,
                "task": "text-generation",
                "tokenizer_type": "PreTrainedTokenizerFast",
                "torch_dtype": f"torch.{config.get('dtype') or config.get('torch_dtype') or 'float32'}",
                "transformers_version": config.get("transformers_version"),
            },
        },
        "metadata": {OURS: dict(metadata)},
        "mlflow_version": _VERSION,
    }


def _requirements(config: Mapping[str, Any]) -> list[str]:
    version = config.get("transformers_version")
    return [f"{name}=={version}" if name == "transformers" and version else name for name in _NEEDS]


def _mlmodel(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as wrong:
        said = str(wrong).partition("\n")[0]
        raise ModelInvalid(str(path), f"cannot be read as YAML ({said})", "log the model again") from None
    if not isinstance(found, dict):
        raise ModelInvalid(str(path), "holds no keys with values", "log the model again")
    return found


def _inside(folder: Path, name: Any, key: str) -> Path:
    """The folder of that name in `folder`, and nowhere else."""
    if not isinstance(name, str):
        raise ModelInvalid(str(folder / MLMODEL), f"names no {key}", "log the model again, with its weights")
    path = folder / checked(name, str(folder / MLMODEL))
    if any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(folder) and part != folder):
        raise ModelInvalid(str(path), "is a link", "put the folder itself there")
    if not path.is_dir():
        raise ModelInvalid(str(path), f"is no folder, though {MLMODEL} names it", "log the model again")
    return path
