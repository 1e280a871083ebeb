"""Metrics of versions on sets, each measured once: by what a folder holds and what is asked.

Owns the files in which they are kept. Knows nothing of who asks.
"""

import json
import os
from pathlib import Path
from typing import Any

from actors.registry import history, tree
from cluster.errors import NotFound
from cluster.storage.blobs import digest_of
from pipelines.lifecycle import exam, waiting
from pipelines.lifecycle.declared import Evaluate
from pipelines.lifecycle.work import Work


def version(work: Work, evaluate: Evaluate, commit: str, who: str, share: float) -> dict[str, Any]:
    """Of a version in the registry; measured if nobody has yet. `who`, `share`: see `folder`."""
    content = tree.manifest(work.registry.history(work.run.model).files(commit))
    sets = {name: exam.digest(file, f"evaluate.sets.{name}") for name, file in evaluate.sets.items()}
    key = digest_of(json.dumps([digest_of(content), sets, evaluate.max_tokens], sort_keys=True).encode())
    file = work.folder.parent / "measured" / f"{key}.json"
    if not file.exists():
        found = folder(work, evaluate, checkout(work, commit), who, share)
        write(file, found)
    return read(file)


def folder(work: Work, evaluate: Evaluate, path: Path, who: str, share: float) -> dict[str, Any]:
    """Of a model folder, told to be that of `who` when `share` of the step is done."""
    begun = str(waiting.marker(work.folder))
    with waiting.handed(work, waiting.amount(evaluate.cpus, "CPU"), f"{who} answers", share):
        return work.hands.measure(str(path), evaluate.sets, evaluate.max_tokens, evaluate.cpus, begun)


def checkout(work: Work, commit: str) -> Path:
    """The folder of a version, within that of the run."""
    path = work.folder / "versions" / commit[:12]
    if not path.exists():
        work.registry.checkout(work.run.model, commit, path)
    return path


def resolve(work: Work, name: str) -> str | None:
    """The commit of what `name` names; None where nothing is named so."""
    found = history.split("version", name)[1] if "@" in name else name
    try:
        return work.registry.history(work.run.model).resolve(found)
    except NotFound:
        return None


def write(file: Path, value: Any) -> None:
    """`value` as JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)


def read(file: Path) -> dict[str, Any]:
    """A JSON object."""
    return dict(json.loads(file.read_text(encoding="utf-8")))
