"""What can be known of a pipeline before a run of it begins: whether all that it names is there.

Owns the refusals. Looks at files, the registry and the settings, and changes nothing.
"""

from pathlib import Path

from actors.registry.history import HEADS, MAIN
from actors.registry.registry import Registry
from cluster.errors import InvalidRequest, NotFound, listed
from pipelines.lifecycle import exam, examples
from pipelines.lifecycle.declared import Pipeline
from pipelines.lifecycle.steps.canary import released
from pipelines.settings import Settings


def check(pipeline: Pipeline, settings: Settings, registry: Registry, *, request: int | None = None) -> None:
    """Raises InvalidRequest or NotFound with the field, the value and what to do; SettingsInvalid for the settings."""
    history = registry.history(pipeline.model)
    train = pipeline.train
    if train is not None and request is None:
        for _ in examples.conversations(Path(train.data), "train.data"):
            pass
        if train.start is not None:
            history.resolve(train.start)
        elif not _there(registry, pipeline, pipeline.alias):
            history.resolve(MAIN)
    if pipeline.evaluate is not None:
        sets = {name: exam.read(file, f"evaluate.sets.{name}") for name, file in pipeline.evaluate.sets.items()}
        exam.rules(pipeline.evaluate.require, exam.metrics(sets))
    if pipeline.canary is not None:
        _, alias, release = released(settings, pipeline.model)
        if pipeline.live is not None and pipeline.live.alias != alias:
            raise InvalidRequest("live.alias", pipeline.live.alias, f"releases of {pipeline.model} move {alias}")
        if pipeline.merge_request is not None and pipeline.merge_request.into != release.on:
            remedy = f"what is merged into {release.on} is released, by routes.{pipeline.model}.release.on"
            raise InvalidRequest("merge_request.into", pipeline.merge_request.into, remedy)
    if pipeline.merge_request is not None and request is None:
        branches = history.refs(HEADS)
        if pipeline.merge_request.into not in branches:
            raise NotFound("branch", f"{pipeline.model}@{pipeline.merge_request.into}", listed(branches))


def served(settings: Settings, pipeline: Pipeline) -> str:
    """The name by which users get the live version, or another of its model: the one that the gateway counts under.

    Raises InvalidRequest where the model is not served from the registry, as no drift could be seen then.
    """
    wanted = f"{pipeline.model}@{pipeline.alias}"
    of_it = [each for each in settings.models if (each.registry or "").partition("@")[0] == pipeline.model]
    if not of_it:
        remedy = f"have `- {{name: {pipeline.model}, registry: {wanted}}}` in models, or leave drift out"
        raise InvalidRequest("on.drift", f"of {pipeline.model}, which is not served from the registry", remedy)
    return next((each.model for each in of_it if each.registry == wanted), of_it[0].model)


def _there(registry: Registry, pipeline: Pipeline, name: str) -> bool:
    try:
        registry.history(pipeline.model).resolve(name)
    except NotFound:
        return False
    return True
