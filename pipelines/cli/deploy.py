"""`strata deploy`: put the models of a settings file onto a cluster that runs."""

import time
from pathlib import Path

from cluster import runtime
from pipelines import places, workers
from pipelines.cli import keys, serving, show
from pipelines.cli.config import settle


def run(file: Path | None, *, as_json: bool) -> None:
    """Deploy and return when every model answers."""
    settings = settle(file).settings
    started = time.monotonic()
    runtime.join(settings.cluster, workers.python())
    serving.publish(settings)
    serving.wait(settings, keys.operator(settings.cluster), show.progress)
    for group in places.sweep():
        show.progress(f"removed {group}: a placement group that no gang owned")
    runtime.disconnect()
    if as_json:
        show.document({"url": f"{settings.cluster.url}/v1", "models": [model.name for model in settings.models]})
    else:
        names = ", ".join(model.name for model in settings.models)
        show.line(f"{names}: ready at {settings.cluster.url}/v1 after {time.monotonic() - started:.0f} s")
