"""`strata models merge-request ...`: from asked for to merged.

Owns words. What a merge request is, and when it is ready, stands in `actors.registry`.
"""

from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from actors.registry import requests
from actors.registry.desk import Desk
from actors.registry.history import named
from actors.registry.merging import Strategy
from actors.registry.requests import MergeRequest, Requirements
from cluster.condition import parse
from cluster.errors import InvalidRequest
from pipelines.cli import show
from pipelines.cli.entrance import entered
from pipelines.cli.metadata import paired
from pipelines.cli.versions import bar


def desk_of(file: Path | None, act: str) -> tuple[Desk, str]:
    """The desk of the settings, and the name of who stands before it and may do `act`."""
    settings, registry, principal = entered(file, act)
    own = settings.registry
    wanted = Requirements(own.approvals, tuple(parse(text, "registry.conditions") for text in own.conditions))
    return Desk(registry, wanted), principal


def start(
    model: str,
    source: str,
    title: str,
    target: str,
    strategy: str,
    weight: float | None,
    file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Open one."""
    desk, principal = desk_of(file, "open_request")
    how = Strategy.wanted(strategy, weight)
    number = desk.open(named("model", model), source, title, author=principal, target=target, strategy=how)
    if as_json:
        show.document({"model": model, "number": number})
    else:
        show.line(f"!{number} asks for {source} into {target}")
        _needs(desk, model, number)


def listing(model: str, file: Path | None, *, as_json: bool) -> None:
    """All of a model."""
    found = desk_of(file, "list_requests")[0].all(named("model", model))
    if as_json:
        show.document([{"number": number} | _plain(each) for number, each in found])
    else:
        show.table(("", "state", "from", "who", "what"), requests.summary(found))


def shown(model: str, number: int, file: Path | None, *, as_json: bool) -> None:
    """One."""
    found, missing = desk_of(file, "show_request")[0].show(named("model", model), number)
    if as_json:
        show.document({"number": number, "missing": missing} | _plain(found))
        return
    show.table(("", "state", "from", "who", "what"), requests.summary([(number, found)]))
    if found.reviews:
        words = {True: "approves", False: "is against"}
        rows = [(each.principal, words[each.approves], each.commit[:12], each.comment) for each in found.reviews]
        show.table(("who", "", "version", "comment"), rows)
    if found.evaluations:
        rows = [
            (each.commit[:12], name, f"{value:g}", "")
            for each in found.evaluations for name, value in each.metrics.items()
        ]  # fmt: skip
        show.table(("version", "metric", "value", ""), rows)
    for line in missing:
        show.line(f"[yellow]needs[/] {escape(line)}")


def review(model: str, number: int, file: Path | None, *, approves: bool, comment: str) -> None:
    """Say yes or no to the version that the source is at."""
    desk, principal = desk_of(file, "review_request")
    desk.review(named("model", model), number, principal=principal, approves=approves, comment=comment)
    _needs(desk, model, number)


def evaluate(model: str, number: int, pairs: list[str], of: str, file: Path | None) -> None:
    """Keep what was measured."""
    metrics = requests.figures(paired(pairs, "METRIC", "name=number", "give it once"))
    if not metrics:
        raise InvalidRequest("METRIC", "nothing", "write metrics as name=number")
    desk, principal = desk_of(file, "evaluate_request")
    desk.evaluate(named("model", model), number, metrics, principal=principal, of=of)
    _needs(desk, model, number)


def merge(model: str, number: int, file: Path | None, *, as_json: bool) -> None:
    """Merge it, if nothing is missing."""
    desk, principal = desk_of(file, "merge_request")
    with bar("merging", None, as_json=as_json) as advance:
        made = desk.merge(named("model", model), number, principal=principal, progress=advance)
    if as_json:
        show.document({"model": model, "number": number, "version": made.version, "commit": made.commit})
    else:
        show.line(f"!{number} is merged as [bold]{model}@{made.version}[/] {made.commit[:12]}")


def close(model: str, number: int, file: Path | None, *, again: bool) -> None:
    """Give it up, or take it up `again`."""
    desk, principal = desk_of(file, "reopen_request" if again else "close_request")
    act = desk.reopen if again else desk.close
    show.line(f"!{number} is {act(named('model', model), number, principal=principal).state.value}")


def _needs(desk: Desk, model: str, number: int) -> None:
    missing = desk.show(model, number)[1]
    for line in missing:
        show.line(f"[yellow]needs[/] {escape(line)}")
    if not missing:
        show.line(f"!{number} can be merged")


def _plain(found: MergeRequest) -> dict[str, object]:
    return asdict(found)
