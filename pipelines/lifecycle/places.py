"""Where runs are: their tables beside the registry, a folder for each in the state folder.

Knows the settings. Knows nothing of what stands there.
"""

import time
from pathlib import Path

from pipelines.lifecycle.runs import Runs
from pipelines.lifecycle.tables import Tables
from pipelines.lifecycle.watched import Watches
from pipelines.settings import Settings
from pipelines.versions import place_of

FILE = "runs.db"


def runs_of(settings: Settings) -> Runs:
    """All runs. Raises SettingsInvalid and ExtraMissing."""
    return Runs(tables_of(settings), time.time)


def watches_of(settings: Settings) -> Watches:
    """All pipelines that are watched. Raises SettingsInvalid and ExtraMissing."""
    return Watches(tables_of(settings))


def tables_of(settings: Settings) -> Tables:
    """Where the metadata of versions are, if the settings say where; else a file beside the registry."""
    place = place_of(settings)
    return Tables(place.metadata or f"sqlite:///{Path(place.folder) / FILE}")


def folder_of(settings: Settings, run: str) -> Path:
    """What a run works in. Training workers have to see it, too, whichever machine they are on."""
    return settings.cluster.state / "runs" / run
