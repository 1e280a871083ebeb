"""`strata runs watch`: which pipelines begin runs by themselves, and what keeps them from it.

Owns words. What is due is decided in `pipelines.lifecycle`.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster import runtime
from cluster.errors import SettingsInvalid
from pipelines import workers
from pipelines.cli import show
from pipelines.cli.config import settle
from pipelines.cli.entrance import who
from pipelines.lifecycle import checks, places, starting
from pipelines.lifecycle.declared import Pipeline, Triggers, check_cycle, kept
from pipelines.lifecycle.watched import Watched
from pipelines.settings import Settings
from pipelines.versions import registry_of


def watch(names: Sequence[str], file: Path | None, *, as_json: bool) -> None:
    """Watch these, too; without any, list those that are watched."""
    settings = settle(file).settings
    by = who(settings.cluster, "begin_run" if names else "list_runs")
    watches, around = places.watches_of(settings), starting.surroundings(file)
    if names:
        wanted = [starting.declared(settings, name) for name in names]
        check(settings, wanted, watches.all())
        _stand_watch(settings, around)
        for pipeline in wanted:
            watches.add(pipeline.model_dump(mode="json"), around, by)
    found = watches.all()
    if as_json:
        show.document([show.plain(each) for each in found])
    else:
        show.table(("pipeline", "begins", "set by", "problem"), [row(each) for each in found])


def unwatch(names: Sequence[str], file: Path | None, *, as_json: bool) -> None:
    """Watch these no more, all or none. Raises NotFound."""
    settings = settle(file).settings
    who(settings.cluster, "begin_run")
    places.watches_of(settings).remove(names)
    if as_json:
        show.document([{"pipeline": name, "watched": False} for name in names])
    else:
        for name in names:
            show.line(f"{name} begins no more runs by itself")


def check(settings: Settings, wanted: Sequence[Pipeline], there: Sequence[Watched]) -> None:
    """Raises for what could never begin, and for pipelines that would wait for one another."""
    together = {}
    for each in there:
        with suppress(SettingsInvalid):  # its own problem, which its row tells
            together[each.pipeline] = kept(each.declared)
    check_cycle((together | {each.name: each for each in wanted}).values())
    registry = registry_of(settings)
    for pipeline in wanted:
        pipeline.require_triggers()
        if pipeline.on.drift is not None:
            checks.served(settings, pipeline)
        checks.check(pipeline, settings, registry)


def row(each: Watched) -> tuple[str, str, str, str]:
    """One in a table."""
    try:
        return each.pipeline, begins(kept(each.declared).on), each.by, each.problem
    except SettingsInvalid as wrong:
        return each.pipeline, "nothing", each.by, f"{wrong}; then strata runs watch {each.pipeline}"


def begins(on: Triggers) -> str:
    """In words."""
    said = [
        "new data" if on.data else "", f"schedule {on.schedule}" if on.schedule else "",
        f"every {on.every}" if on.every else "", "merge requests" if on.merge_request else "",
        f"drift {on.drift.rule}" if on.drift else "", f"after {on.after}" if on.after else "",
    ]  # fmt: skip
    return ", ".join(part for part in said if part)


def _stand_watch(settings: Settings, around: dict[str, object]) -> None:
    runtime.join(settings.cluster, workers.python())
    try:
        from pipelines.links import watching  # noqa: PLC0415 - not before Ray's environment stands

        watching(around)
    finally:
        runtime.disconnect()
