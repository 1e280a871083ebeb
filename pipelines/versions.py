"""From settings to the registry, and from a version's name to the version that is served.

Knows both branches of the settings. Knows no cluster.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from actors.registry import history
from actors.registry.candidates import Candidates
from actors.registry.copies import Copies
from actors.registry.pieces import Progress, quietly
from actors.registry.registry import Registry
from actors.registry.service import Place, opened
from actors.settings import ModelSettings, Pinned
from pipelines.settings import Settings

if TYPE_CHECKING:
    from actors.registry.catalogue import Catalogue


def place_of(settings: Settings) -> Place:
    """Where the registry of the settings is."""
    own = settings.registry
    folder = Path(own.folder).expanduser() if own.folder else settings.cluster.state / "registry"
    return Place(str(folder.absolute()), own.store, own.metadata, own.approvals, own.conditions)


def registry_of(settings: Settings) -> Registry:
    """The registry that the settings describe, made where there is none. Raises SettingsInvalid and Unavailable."""
    return opened(place_of(settings))


def catalogue_of(settings: Settings, registry: Registry) -> "Catalogue":
    """Where its metadata are searched. Raises SettingsInvalid and ExtraMissing."""
    from actors.registry.catalogue import Catalogue  # noqa: PLC0415 - SQLAlchemy takes 0.25 s, and few ask

    return Catalogue(registry, settings.registry.metadata)


def pinned(settings: Settings, progress: Progress = quietly) -> Settings:
    """The settings with each name of a version settled, its signature checked, and a checked copy of it here.

    Those that are settled already stay. Raises NotFound, ModelInvalid, SettingsInvalid and Unavailable.
    """
    if all(model.registry is None or isinstance(model, Pinned) for model in settings.models):
        return settings
    registry = registry_of(settings)
    models = tuple(
        _pinned(each, registry, settings, progress, None if each is model else model)
        for model in settings.models
        for each in _served(model, registry, settings)
    )
    return settings.model_copy(update={"models": models})


def beside(settings: Settings, model: str, version: str) -> Settings:
    """The settings with one more version of a model that is released by itself, behind those that it has.

    Raises as `pinned`.
    """
    origins = (each.origin for each in settings.models if isinstance(each, Pinned) and each.model == model)
    origin = next(each for each in origins if each is not None and each.registry is not None)
    name = (origin.registry or "").partition("@")[0]
    more = origin.model_copy(update={"name": f"{model}@{version}", "registry": f"{name}@{version}"})
    made = _pinned(more, registry_of(settings), settings, quietly, origin)
    return settings.model_copy(update={"models": (*settings.models, made)})


def declared(settings: Settings) -> Settings:
    """The settings as they were before versions that are released became models of their own."""
    models: list[ModelSettings] = []
    for model in settings.models:
        origin = model.origin if isinstance(model, Pinned) else None
        if origin is None or origin not in models:
            models.append(origin or model)
    return settings.model_copy(update={"models": tuple(models)})


def _served(model: ModelSettings, registry: Registry, settings: Settings) -> list[ModelSettings]:
    """A model that is released by itself as the versions that are to answer: who is live first, then who is due."""
    release = settings.routes[model.name].release if model.name in settings.routes else None
    if release is None or model.registry is None or isinstance(model, Pinned):
        return [model]
    name, alias = history.split(f"registry of {model.name}", model.registry)
    return [
        model.model_copy(update={"name": f"{model.name}@{version}", "registry": f"{name}@{version}"})
        for version in Candidates(registry).served(name, alias, release.on)
    ]


def _pinned(
    model: ModelSettings, registry: Registry, settings: Settings, progress: Progress, origin: ModelSettings | None
) -> ModelSettings:
    if model.registry is None or isinstance(model, Pinned):
        return model
    name, reference = history.split(f"registry of {model.name}", model.registry)
    pin = registry.pin(name, reference)
    own = settings.registry.cache
    cache = Path(own).expanduser().absolute() if own else settings.cluster.state / "versions"
    most = settings.registry.cache_gb
    copies = Copies(cache, registry.store, most)
    path = copies.ensure(pin.manifest, model.registry, progress)
    number = next(
        (each for each, commit in history.numbered(registry.history(name)).items() if commit == pin.commit), ""
    )
    return model.pinned(
        f"{name}@{pin.commit}", pin.manifest, registry.store, str(cache), str(path), most, origin, number
    )
