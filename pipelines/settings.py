"""The root of all settings, and the one place that loads them.

Knows which branches there are and where the shipped model lies. What a branch may say stands with its owner.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from actors.registry.settings import RegistrySettings
from actors.settings import ModelSettings, Pinned
from cluster import layers
from cluster.errors import SettingsInvalid
from cluster.layers import refused
from cluster.settings import ClusterSettings
from pipelines.gateway.settings import GatewaySettings
from pipelines.lifecycle.declared import Pipeline, check_after, check_cycle
from pipelines.routing.asking import check_release
from pipelines.routing.settings import BASE, RouteSettings, check

HOME = Path(__file__).parent.parent  # what lies beside the packages: the shipped model
FILE = "strata.yaml"

STARTER = ModelSettings(name="strata-starter", path="models/starter", tensor_parallel_size=2)


class Settings(BaseModel):
    """Everything that can be set. The same file runs on one machine and on a cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: ClusterSettings = ClusterSettings()
    models: tuple[ModelSettings, ...] = Field((STARTER,), description="what is served")
    routes: dict[str, RouteSettings] = Field({}, description="of models that are served in several versions, by name")
    pipelines: tuple[Pipeline, ...] = Field((), description="what trains, evaluates and releases versions")
    gateway: GatewaySettings = GatewaySettings()
    registry: RegistrySettings = RegistrySettings()

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        if not models:
            raise ValueError("name at least one model, or leave `models` out for the starter model")
        names = [model.name for model in models]
        _require_different("models", names)
        for name in names:
            if f"{name}@{BASE}" in names:
                remedy = f"{name!r} is the version {BASE!r} already; give {name}@{BASE} another one"
                raise refused(f"{names.index(f'{name}@{BASE}')}.name", f"{name}@{BASE}", remedy)
        return models

    @field_validator("pipelines")
    @classmethod
    def _pipelines_differ(cls, pipelines: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        _require_different("pipelines", [pipeline.name for pipeline in pipelines])
        check_after(pipelines)
        check_cycle(pipelines)
        return pipelines

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> "Settings":
        check(self.routes, self.versions)
        for name, route in self.routes.items():
            check_release(name, route)
            if route.release is not None:
                self._check_released(name, route.release.on)
        return self

    def _check_released(self, name: str, on: str) -> None:
        key = f"routes.{name}.release"
        served = [model for model in self.models if model.model == name]
        if any(isinstance(model, Pinned) and model.origin for model in served):
            return  # it was settled already
        if len(served) != 1 or served[0].version or "@" not in (served[0].registry or ""):
            raise SettingsInvalid(
                key, "a model that no alias names", f"write `- {{name: {name}, registry: {name}@prod}}` in models, once"
            )
        if (served[0].registry or "").partition("@")[2] == on:
            raise SettingsInvalid(f"{key}.on", on, "this alias says who is live: watch a branch, or another alias")

    @property
    def versions(self) -> dict[str, tuple[str, ...]]:
        """The versions of each model that is served, by the name that clients ask for, in the order of the file."""
        found: dict[str, tuple[str, ...]] = {}
        for model in self.models:
            found[model.model] = (*found.get(model.model, ()), model.version or BASE)
        return found

    @property
    def routed(self) -> dict[str, tuple[str, ...]]:
        """Of those, the models that are served in versions, or have a route."""
        named = {model.model for model in self.models if model.version} | self.routes.keys()
        return {name: versions for name, versions in self.versions.items() if name in named}

    @model_validator(mode="after")
    def _who_sleeps_is_waited_for(self) -> "Settings":
        for model in self.models:
            if model.scaling is not None and model.scaling.min == 0:
                for key in ("hold_seconds", "held_requests"):
                    if not getattr(self.gateway, key):
                        raise refused(
                            f"gateway.{key}", 0, f"scaling.min: 0 of {model.name} goes ill with that: "
                            "the request that wakes it could not wait for it",
                        )  # fmt: skip
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Settings":
        """The settings in plain values, as the `args` of a Serve config holds them. Raises SettingsInvalid."""
        return _located(layers.settle(cls, values), None)


def load(
    file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> layers.Loaded[Settings]:
    """The settings of this start, models found. Without `file`, `strata.yaml` here counts if there is one."""
    if file is None and Path(FILE).is_file():
        file = Path(FILE)
    loaded = layers.load(Settings, file, environment, flags)
    return layers.Loaded(_located(loaded.settings, file), loaded.sources)


def _require_different(what: str, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise refused(f"{place}.name", name, f"two {what} are named {name!r}; give each its own name")


def _located(settings: Settings, file: Path | None) -> Settings:
    models = tuple(
        model.model_copy(update={"path": locate(model.path, file)}) if model.path else model
        for model in settings.models
    )
    routes = {
        model: route.model_copy(update={"evals": {name: locate(source, file) for name, source in route.evals.items()}})
        for model, route in settings.routes.items()
    }
    pipelines = tuple(_found(pipeline, file) for pipeline in settings.pipelines)
    return settings.model_copy(update={"models": models, "routes": routes, "pipelines": pipelines})


def _found(pipeline: Pipeline, file: Path | None) -> Pipeline:
    train, evaluate = pipeline.train, pipeline.evaluate
    if train is not None:
        train = train.model_copy(update={"data": locate(train.data, file)})
    if evaluate is not None:
        sets = {name: locate(source, file) for name, source in evaluate.sets.items()}
        evaluate = evaluate.model_copy(update={"sets": sets})
    return pipeline.model_copy(update={"train": train, "evaluate": evaluate})


def locate(path: str, file: Path | None = None) -> str:
    """A model's folder, or a file, as an absolute path: beside the settings file, here, or beside the packages.

    One that is found nowhere stays as it is: it may exist on the nodes alone.
    """
    given = Path(path).expanduser()
    places = [*([file.parent] if file else []), Path.cwd(), HOME]
    return next((str((place / given).resolve()) for place in places if (place / given).exists()), str(given))
