"""Whether what the settings name is there: folders of models, versions in the registry, files of questions and texts.

Looks, and makes nothing: a registry that was never begun stays so.
"""

from collections.abc import Iterator
from pathlib import Path

from actors.registry import history
from actors.settings import ModelSettings
from cluster.errors import InvalidRequest, StrataError
from pipelines.evals import HELD_OUT
from pipelines.routing import cases
from pipelines.settings import Settings
from pipelines.versions import place_of, registry_of


def missing(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is not there, with the key that names it, and what to do about it."""
    for place, model in enumerate(settings.models):
        if problem := _version(settings, model) if model.registry else _folder(model.path):
            yield f"models.{place}.{'registry' if model.registry else 'path'}: {problem[0]}", problem[1]
    for name, route in settings.routes.items():
        for each, source in route.evals.items():
            try:
                if source != HELD_OUT:
                    cases.read(Path(source).expanduser())
            except InvalidRequest as wrong:
                remedy = f"{wrong.remedy}; or write {HELD_OUT}"
                yield f"routes.{name}.evals.{each}: {wrong.field}: {wrong.value}", remedy
    for place, pipeline in enumerate(settings.pipelines):
        train, evaluate = pipeline.train, pipeline.evaluate
        files = {"train.data": train.data} if train else {}
        files |= {f"evaluate.sets.{each}": source for each, source in (evaluate.sets if evaluate else {}).items()}
        for key, source in files.items():
            if not Path(source).expanduser().exists():
                yield f"pipelines.{place}.{key}: {source}: no such file", "put it there, or name one that is there"


def _folder(path: str) -> tuple[str, str] | None:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return f"{path}: no such folder on this machine", "name a Hugging Face folder, or a version with `registry`"
    if not (folder / "config.json").is_file():
        return f"{path}: it has no config.json", "name the folder that has it: a model as Hugging Face keeps one"
    return None


def _version(settings: Settings, model: ModelSettings) -> tuple[str, str] | None:
    said = str(model.registry)
    folder = Path(place_of(settings).folder) / "models"
    remedy = f"push it (strata models push FOLDER --name {said.partition('@')[0]}), or name what is there"
    if not folder.is_dir() or not any(folder.iterdir()):
        return f"{said}: no model was ever pushed to {folder.parent}", remedy
    try:
        registry_of(settings).trusted(*history.split("registry", said))
    except (StrataError, OSError) as wrong:
        return f"{said}: {wrong}", remedy
    return None
