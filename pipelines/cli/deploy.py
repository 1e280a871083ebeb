"""`strata deploy`: put the models of a settings file onto a cluster that runs.

Inside `ray job submit` the cluster is the job's own; elsewhere the settings name it.
"""

import os
import time
from pathlib import Path

from cluster import runtime
from cluster.errors import Unavailable
from pipelines.cli import keys, serving, show
from pipelines.cli.config import settle
from pipelines.settings import Settings


def run(file: Path | None, *, as_json: bool) -> None:
    """Deploy and return when every model answers."""
    settings = settle(file).settings
    started = time.monotonic()
    join(settings)
    serving.publish(settings)
    serving.wait(settings, keys.operator(settings.cluster), show.progress)
    if as_json:
        show.document({"url": f"{settings.cluster.url}/v1", "models": [model.name for model in settings.models]})
    else:
        names = ", ".join(model.name for model in settings.models)
        show.line(f"{names}: ready at {settings.cluster.url}/v1 after {time.monotonic() - started:.0f} s")


def join(settings: Settings) -> None:
    """Become a driver of the cluster that is meant. Raises Unavailable where there is none."""
    running = runtime.find(settings.cluster)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or os.environ.get("RAY_ADDRESS"):  # set by `ray job submit`
        runtime.connect(settings.cluster.model_copy(update={"address": "auto"}))
    elif settings.cluster.address == "local" and running is None:
        raise Unavailable("the local cluster", "it is not up; run `strata up --detach`, or set cluster.address")
    else:
        runtime.connect(settings.cluster, running)
