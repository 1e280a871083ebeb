"""`strata deploy`: put the models of a settings file onto a cluster that runs."""

import time
from pathlib import Path

from cluster import runtime
from pipelines import places, workers
from pipelines.cli import keys, serving, show
from pipelines.cli.config import settle
from pipelines.cli.settling import settled


def run(file: Path | None, *, as_json: bool) -> None:
    """Deploy and return when every model answers."""
    started = time.monotonic()
    settings = settled(settle(file).settings, as_json=as_json)
    if running := runtime.find(settings.cluster):
        for line in runtime.unread(settings.cluster, running):
            show.warning(line)
    runtime.join(settings.cluster, workers.python())
    settings = serving.publish(settings)
    serving.wait(settings, keys.operator(settings.cluster), show.progress)
    for group in places.sweep():
        show.progress(f"removed {group}: a placement group that no gang owned")
    runtime.disconnect()
    if as_json:
        show.document({"url": f"{settings.cluster.url}/v1", "models": [model.name for model in settings.models]})
    else:
        names = ", ".join(model.name for model in settings.models)
        show.line(f"{names}: ready at {settings.cluster.url}/v1 after {time.monotonic() - started:.0f} s")
