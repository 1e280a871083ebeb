"""Settings whose versions are settled: what `up` and `deploy` begin with.

Owns words and a bar. What is imported waits until a model is a version: most are folders.
"""

from pipelines.cli import show
from pipelines.settings import Settings


def settled(settings: Settings, *, as_json: bool) -> Settings:
    """With a copy of each model's version on this machine. Raises what `versions.pinned` raises."""
    if not any(model.registry for model in settings.models):
        return settings
    from pipelines import versions  # noqa: PLC0415 - see above
    from pipelines.cli.versions import bar  # noqa: PLC0415

    with bar("copying", None, as_json=as_json) as advance:
        found = versions.pinned(settings, advance)
    asked = {model.name: model.registry for model in settings.models}
    for model in found.models:
        if model.registry:
            show.progress(f"{model.name}: {asked.get(model.name, model.name)} is {model.registry}")
    return found
