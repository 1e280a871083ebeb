"""Versions to and from folders of other tools: Hugging Face's, which a version is, and MLflow's model folder.

What is known of a version goes along: in `MLmodel`, or in a file of ours that Hugging Face does not look at.

Knows MLflow's layout (flavor `transformers`: `MLmodel`, the model in `model`, what goes with it in `components`); what
stands in it is `mlmodel`'s. Knows no store.
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

from actors.registry import disk, mlmodel, tree
from actors.registry.folder import FACTS, TOKENIZERS, checked
from actors.registry.mlmodel import MODEL, OURS
from actors.registry.pieces import Progress, quietly
from actors.registry.registry import Registry
from cluster.errors import InvalidRequest, ModelInvalid

FORMS = ("huggingface", "mlflow")
MLMODEL, COMPONENTS = "MLmodel", "components"
_WITH_TOKENIZER = ("special_tokens_map.json", "tokenizer_config.json", "added_tokens.json", "chat_template.jinja",
                   "vocab.json", "merges.txt", *TOKENIZERS)  # fmt: skip


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
    """What kind of folder it is. Raises ModelInvalid for one of MLflow's that holds no transformers model, and where
    what is known of it cannot be read.
    """
    if not (folder / MLMODEL).is_file():
        return Found("huggingface", folder, (), _facts(folder / FACTS))
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


@disk.explained()
def export(registry: Registry, model: str, name: str, into: Path, form: str, progress: Progress = quietly) -> str:
    """Write a version to the new folder `into`, in one of FORMS; its commit. The folder appears whole or not at all.

    Raises what `Registry.checkout` raises.
    """
    disk.expect_new(into)
    scratch = into.parent / f".{into.name}.{secrets.token_hex(4)}"
    try:
        commit = registry.checkout(model, name, scratch, progress)
        if form == "mlflow":
            version, digest = registry.show(model, commit), registry.pin(model, commit).manifest
            wrap(scratch, version.metadata, version.entry.at, digest)
        elif metadata := registry.show(model, commit).metadata:
            (scratch / FACTS).write_bytes(tree.facts(metadata))
        os.rename(scratch, into)  # noqa: PTH104 - a Path says the same longer
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return commit


def wrap(folder: Path, metadata: Mapping[str, Any], at: int, digest: str) -> None:
    """Make MLflow's folder of a checked out version, in place; equal versions of one time become equal folders."""
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
    said = mlmodel.Said(config, _chats(folder / MODEL), metadata, at, digest)
    needs = mlmodel.requirements(config)
    (folder / "requirements.txt").write_text("".join(f"{need}\n" for need in needs), "utf-8")
    for name, holds in {MLMODEL: mlmodel.described(said), **mlmodel.environments(needs)}.items():
        (folder / name).write_text(yaml.safe_dump(holds), "utf-8")


def _chats(folder: Path) -> bool:
    """Whether there is a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


def _facts(path: Path) -> dict[str, Any]:
    """The metadata that an export left there; none where there is no such file."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))["metadata"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found = None
    if path.is_symlink() or not isinstance(found, dict):
        raise ModelInvalid(str(path), "is not what an export writes", "export the version again, or rename the file")
    return found


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
