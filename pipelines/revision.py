"""What a deployment is made of, as a short digest: what has the same one as before need not start anew.

Knows files and settings. Knows nothing of Serve, which is told the digest as a deployment's version.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from actors.settings import ModelSettings, Pinned
from cluster.settings import ClusterSettings
from pipelines.settings import HOME, Settings

SOURCES = (".py", ".cpp", ".h")
WEIGHTS = (".json", ".safetensors", ".jinja", ".model")  # of a model folder, what is read from it
SCALED = {"replicas", "spares", "scaling"}  # more or fewer of the same
KEPT = {"cache_gb", "origin", "asked", "number"}  # of a version: what has room beside it, and what it is called


def of_model(model: ModelSettings, device: str, cluster: ClusterSettings) -> str:
    """A gang's digest: its settings, its folder's files, our code below the gateway."""
    folders = [stamps(folder) for folder in (model.path, model.draft_model) if folder]
    kept = model.model_dump(mode="json", exclude=SCALED | KEPT)
    scales = model.scaling is not None  # then its gangs say how they fare
    return digest(kept, device, scales, cluster.drain_seconds, folders, code("cluster", "actors"))


def of_gateway(settings: Settings) -> str:
    """The gateway's digest: its settings, which models there are, their tokenizers, all our code but the CLI's."""
    models = [
        (
            model.name,
            "" if isinstance(model, Pinned) else model.path,  # of versions, what they hold counts
            model.scaling is not None and ("sleeps" if model.scaling.min == 0 else "scales"),
            model.serving,
            stamps(model.path, (".json", ".jinja")),
        )
        for model in settings.models
    ]
    kept = settings.gateway.model_dump(mode="json")
    routed = sorted(settings.routed.items())
    return digest(kept, models, routed, str(settings.cluster.keys_file), code("cluster", "actors", "pipelines"))


def of_control(settings: Settings, evals: Any = None) -> str:
    """The digest of who owns the routes: those of the settings, which versions there are, the questions that they are
    judged by as plain values, its folder, its code.
    """
    routes = {model: route.model_dump(mode="json") for model, route in settings.routes.items()}
    released = any(route.release for route in settings.routes.values())  # then it deploys all of them again
    more = settings.model_dump(mode="json", exclude={"pipelines"}) if released else None
    return digest(routes, settings.routed, evals, more, str(settings.cluster.state), code("cluster", "pipelines"))


def of_webhooks(settings: Settings) -> str:
    """The digest of who tells what happens in the registry."""
    return digest(
        settings.registry.model_dump(mode="json"), str(settings.cluster.state), code("cluster", "actors", "pipelines")
    )


def digest(*parts: Any) -> str:
    """A short name for plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def stamps(folder: str, kinds: tuple[str, ...] = WEIGHTS) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a model's files; none where the folder is on other machines alone."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(kinds)]
    except OSError:
        return []
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


@cache
def code(*packages: str) -> str:
    """The digest of our sources in these packages; what only the command line runs is left out."""
    hashed = hashlib.sha256()
    for file in sorted(_sources(packages)):
        hashed.update(str(file.relative_to(HOME)).encode() + b"\0" + file.read_bytes())
    return hashed.hexdigest()


def _sources(packages: Iterable[str]) -> Iterable[Path]:
    left_out = {HOME / "pipelines" / name for name in ("cli", "bench", "lifecycle")}
    for package in packages:
        for file in (HOME / package).rglob("*"):
            if file.suffix in SOURCES and not left_out & set(file.parents):
                yield file
