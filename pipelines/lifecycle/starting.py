"""Begin runs, take them up again, cancel them: for commands, for the watch, and for whatever else starts one.

Owns the order: a run is in the tables before a job drives it, so that none is lost, and the watch finds one whose
driver never came.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from actors.registry.desk import Desk
from actors.registry.requests import Requirements
from cluster.condition import parse
from cluster.errors import Barred, Conflict, ExtraMissing, InvalidRequest, NotFound, StrataError, listed
from pipelines.lifecycle import checks, jobs, places
from pipelines.lifecycle.declared import STEPS, Pipeline
from pipelines.lifecycle.drive import driven
from pipelines.lifecycle.run import MOVES, Event, Run, State
from pipelines.lifecycle.runs import Runs
from pipelines.settings import Settings
from pipelines.versions import registry_of

TRAINING = ("pandas", "pyarrow")  # what Ray Train imports besides Ray
TRAINS = ("train", "push")  # what a run for a merge request does without: there is a version already


def surroundings(file: Path | None) -> dict[str, Any]:
    """Which settings a run was begun with: their file and variables, none of which is a key."""
    if file is None and Path("strata.yaml").is_file():
        file = Path("strata.yaml")
    variables = {name: value for name, value in os.environ.items() if name.startswith("STRATA_") and "__" in name}
    return {"file": str(file.absolute()) if file else None, "variables": variables}


def desk_of(settings: Settings) -> Desk:
    """Where the merge requests of the settings' registry are."""
    own = settings.registry
    wanted = tuple(parse(text, "registry.conditions") for text in own.conditions)
    return Desk(registry_of(settings), Requirements(own.approvals, wanted))


def declared(settings: Settings, name: str) -> Pipeline:
    """The pipeline that the settings call so. Raises NotFound."""
    found = next((each for each in settings.pipelines if each.name == name), None)
    if found is None:
        known = listed(each.name for each in settings.pipelines)
        raise NotFound("pipeline", name, known or ("none: declare one under `pipelines` in the settings",))
    return found


def begin(
    settings: Settings, pipeline: Pipeline, why: str, by: str, around: Mapping[str, Any], *,
    request: int | None = None, seen: tuple[Any, Any] | None = None,
) -> str:  # fmt: skip
    """Begin a run of `pipeline`; its id. With `request` it is for that merge request of the model.

    `around`: see `surroundings`; `seen`: see `Runs.begin`. Raises what `checks.check` raises, InvalidRequest for a
    request where the pipeline takes none, Conflict, and Unavailable where no job can be submitted; then the run is
    there and can be taken up.
    """
    if request is not None and not pipeline.on.merge_request:
        raise InvalidRequest("request", f"!{request}", "declare on: {merge_request: true} in the pipeline")
    if request is None and pipeline.train is None:
        raise InvalidRequest("request", "none", "this pipeline does not train: name a merge request")
    if request is not None:
        desk_of(settings).show(pipeline.model, request)
    elif settings.cluster.address == "local" and not all(map(find_spec, TRAINING)):  # else others do it
        raise ExtraMissing("training", "train")
    checks.check(pipeline, settings, registry_of(settings), request=request)
    runs = places.runs_of(settings)
    steps = [(step, request is None or step not in TRAINS) for step in STEPS if step in pipeline.steps]
    run = runs.begin(pipeline.model_dump(mode="json"), steps, why, by, around, request, seen)
    drive(settings, runs, run)
    return run


def drive(settings: Settings, runs: Runs, run: str) -> None:
    """Submit the job that drives a run. Raises Unavailable."""
    around = runs.surroundings(run)
    job = jobs.submit(settings.cluster, run, secrets.token_hex(3), around["variables"], around["file"])
    runs.submitted(run, job)


def resume(settings: Settings, run: str) -> Run:
    """Take a run up where it was left. Raises Barred where it is over, and Conflict where somebody drives it."""
    runs = places.runs_of(settings)
    found = runs.find(run)
    _require_open(found)
    if driven(places.folder_of(settings, run)):
        raise Conflict(f"run {run}", "left by its driver", "being driven")
    drive(settings, runs, run)
    return runs.find(run)


def fallen(settings: Settings, run: Run) -> str:
    """Why no driver is at a run that waits for one: the last words of its job, if that has ended. Empty elsewhere."""
    if run.state is not State.QUEUED or not run.job:
        return ""
    return jobs.fallen(settings.cluster, run.job)


def _require_open(run: Run) -> None:
    if (run.state, Event.CANCEL) not in MOVES:
        raise Barred(f"run {run.id}", f"is {run.state} for good", f"`strata runs start {run.pipeline}` begins another")


def undecided(settings: Settings, run: Run) -> tuple[int, list[str]]:
    """The merge request of a run that waits, and what people have to see to by now; nothing once it may go on."""
    number = int(run.made("request") or run.request or 0)
    return number, desk_of(settings).show(run.model, number)[1]


def cancel(settings: Settings, run: str) -> Run:
    """End a run: its rollout is aborted and its driver stopped; what it has merged stays merged, and is released.

    Raises Barred where it is over already.
    """
    runs = places.runs_of(settings)
    _require_open(runs.find(run))
    runs.move(run, Event.CANCEL, "cancelled")
    found = runs.find(run)
    if rollout := found.step("canary").made.get("rollout"):
        with suppress(StrataError):  # it may be over, or the gateway down: then no user has it
            jobs.OnRay(settings).ask("POST", f"/v1/rollouts/{rollout}", {"action": "abort"})
    if found.job:
        with suppress(StrataError):  # a driver that goes on finds that it may not write any more
            jobs.end(settings.cluster, found.job)
    return found
