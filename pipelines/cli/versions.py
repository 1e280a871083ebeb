"""`strata models push`, `log`, `show`, `diff`, `checkout` and their siblings: versions of models.

Owns words and bars. What a version is stands in `actors.registry`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from actors.registry import exchange, finite, history
from actors.registry.folder import survey
from actors.registry.history import MAIN, named
from actors.registry.merging import Strategy
from actors.registry.pieces import Progress as Advance
from actors.registry.registry import Version
from actors.registry.stages import Stage, Stages
from actors.registry.words import checked
from cluster.errors import InvalidRequest, Unavailable, shorten
from pipelines.cli import show
from pipelines.cli.entrance import entered
from pipelines.cli.metadata import catalogued, described_in, facts
from pipelines.versions import catalogue_of


def split(reference: str) -> tuple[str, str]:
    """See `history.split`."""
    return history.split("model", reference)


def push(
    path: Path,
    model: str,
    branch: str,
    pairs: list[str],
    message: str,
    file: Path | None,
    *,
    as_json: bool,
    described: Path | None = None,
) -> None:
    """Make a folder the next version of a model."""
    named("--name", model)
    checked("--message", message)
    metadata = facts(pairs)
    settings, registry, principal = entered(file, "push")
    if described is not None:
        metadata = described_in(described) | metadata
    found = exchange.look(path)
    metadata = {**found.metadata, **metadata}
    total, left = survey(found.folder, found.beside)
    if left:
        show.progress(escape(f"left out: {', '.join(left)}"))
    with bar("pushing", total, as_json=as_json) as advance:
        made = registry.push(
            model, found.folder, author=principal, branch=branch, message=message or f"Push {shorten(path.name)}",
            metadata=metadata, beside=found.beside, progress=advance,
        )  # fmt: skip
    catalogued(settings, registry)
    for name, (count, values) in made.not_finite.items():
        show.warning(f"{name} is {finite.told(count, values)}; merges that compute refuse it")
    if as_json:
        show.document({"model": model, **{name: getattr(made, name) for name in made.__slots__}})
        return
    if not made.new:
        back = (
            f"{show.amount(made.stored)} of it, which had been lost, is there again"
            if made.stored
            else "nothing is new"
        )
        show.line(f"{model}@{made.version} is that folder already; {back}")
        return
    shared = 100 - 100 * made.stored / max(1, made.size)
    size = show.amount(made.size)
    at = f"{made.commit[:12]}, the tip of {branch}"
    show.line(f"[bold]{model}@{made.version}[/] {at}, {size}, of which {shared:.1f} % was here")
    if made.begins is not None and branch != MAIN:
        show.line(f"new branch {branch}{made.begins and f', from {MAIN} {made.begins}'}")


def log(reference: str, file: Path | None, *, as_json: bool) -> None:
    """What a version descends from."""
    model, name = split(reference)
    _, registry, _ = entered(file, "list_versions")
    known = Stages(registry).all(model)
    rows = [(entry, names, staged(names, known)) for entry, names in registry.log(model, name)]
    if as_json:
        show.document([show.plain(entry) | {"names": names, "stage": stage} for entry, names, stage in rows])
        return
    told = [
        (
            names[0] if names else entry.id[:12], stage, entry.id[:12], show.when(entry.at), entry.author,
            ", ".join(names[1:]), show.first(entry.message),
        )
        for entry, names, stage in rows
    ]  # fmt: skip
    columns = ("version", "stage", "commit", "when", "who", "also", "why")
    show.table(columns, told, spare=("commit", "who"))


def shown(reference: str, file: Path | None, *, as_json: bool) -> None:
    """One version."""
    _, registry, _ = entered(file, "show_version")
    version = registry.show(*split(reference))
    stage = staged(version.names, Stages(registry).all(version.model))
    if as_json:
        show.document({
            "model": version.model, **show.plain(version.entry), "names": version.names, "stage": stage,
            "metadata": version.metadata, "files": version.files, "tensors": version.tensors, "size": version.size,
            "signed": version.signed,
        })  # fmt: skip
        return
    show.table(("", ""), _described(version, stage))
    show.table(("file", "size"), [(name, show.amount(size)) for name, size in sorted(version.files.items())])


def checkout(reference: str, into: Path, file: Path | None, *, as_json: bool) -> None:
    """Write a version out as a folder that any engine loads."""
    model, name = split(reference)
    _, registry, _ = entered(file, "checkout")
    with bar("writing", registry.show(model, name).size, as_json=as_json) as advance:
        commit = registry.checkout(model, name, into, advance)
    if as_json:
        show.document({"model": model, "commit": commit, "folder": str(into)})
    else:
        show.line(f"{escape(str(into))} is {model} {commit[:12]}")


def branch(reference: str, branch: str, file: Path | None) -> None:
    """Begin a branch at a version."""
    model, name = split(reference)
    show.line(f"{model}@{branch} begins at {entered(file, 'branch')[1].branch(model, branch, name)[:12]}")


def tag(reference: str, tag: str, file: Path | None) -> None:
    """Give a version a name that stays."""
    model, name = split(reference)
    show.line(f"{model}@{tag} is {entered(file, 'tag')[1].tag(model, tag, name)[:12]}")


def remove(reference: str, kind: str | None, file: Path | None) -> None:
    """Take an alias, a tag or a branch away."""
    model, name = split(reference)
    if "@" not in reference:
        raise InvalidRequest("MODEL@NAME", reference, f"name what is to go, such as {reference}@prod")
    found = entered(file, "remove")[1].remove(model, name, kind)
    show.line(f"the {found} {model}@{name} is gone; versions stay")


def merge(
    source: str, into: str, strategy: str, weight: float | None, message: str, file: Path | None, *, as_json: bool
) -> None:
    """Make the next version of a branch of it and of another version, or of an adapter."""
    model, branch = split(into)
    how = Strategy.wanted(strategy, weight)
    checked("--message", message)
    if strategy != "lora" and "@" in source:
        other, source = split(source)
        if other != model and "@" not in into:
            raise InvalidRequest("--into", into, f"name a branch of {other}, such as {other}@{into}")
        if other != model:
            raise InvalidRequest("SOURCE", f"{other}@{source}", f"name a version of {model}")
    settings, registry, principal = entered(file, "merge")
    with bar("merging", registry.show(model, branch).size, as_json=as_json) as advance:
        made = registry.merge(
            model, source, author=principal, branch=branch, strategy=how, message=message, progress=advance
        )
    catalogued(settings, registry)
    if as_json:
        show.document({"model": model, **{name: getattr(made, name) for name in made.__slots__}})
    else:
        size = show.amount(made.stored)
        show.line(f"[bold]{model}@{made.version}[/] {made.commit[:12]}, the tip of {branch} ({how}); {size} stored")


def fsck(file: Path | None, *, repair: bool = False, as_json: bool) -> int:
    """Read everything that versions are made of; the number of faults."""
    settings, registry, _ = entered(file, "fsck")
    faults, removed = registry.repair() if repair else (registry.fsck(), [])
    if not faults:
        try:
            faults = catalogue_of(settings, registry).check()
        except Unavailable as wrong:
            show.progress(escape(f"the catalogue was not compared: {wrong}"))
    if as_json:
        told = [{"wrong": each.wrong, "places": [show.plain(place) for place in each.places]} for each in faults]
        show.document({"faults": told, "removed": removed})
        return len(faults)
    for line in removed:
        show.line(f"[yellow]removed, as it was changed:[/] {escape(line)}")
    if repair and not removed:
        show.line("nothing was changed, and nothing removed")
    for fault in faults:
        show.line(f"[red]{escape(str(fault))}[/]")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    show.line(count if faults else "all content is there and as it was pushed")
    return len(faults)


def export(reference: str, into: Path, form: str, file: Path | None, *, as_json: bool) -> None:
    """Write a version out as another tool's folder."""
    model, name = split(reference)
    wanted = exchange.form(form)
    _, registry, _ = entered(file, "export")
    with bar("writing", registry.show(model, name).size, as_json=as_json) as advance:
        commit = exchange.export(registry, model, name, into, wanted, advance)
    if as_json:
        show.document({"model": model, "commit": commit, "folder": str(into), "format": form})
    else:
        show.line(f"{escape(str(into))} is {model} {commit[:12]} for {form}")


def gc(file: Path | None) -> None:
    """Remove content that no version names."""
    show.line(f"{entered(file, 'gc')[1].gc()} pieces removed")


@contextmanager
def bar(title: str, size: int | None, *, as_json: bool) -> Iterator[Advance]:
    """A bar of bytes on a terminal; elsewhere nothing, as what it comes to is said at the end."""
    drawn = Progress(
        TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=show.err, transient=True,
        disable=as_json or not show.err.is_terminal,
    )  # fmt: skip
    with drawn:
        task = drawn.add_task(title, total=size)
        yield lambda done: drawn.advance(task, done)


def _described(version: Version, stage: str) -> list[tuple[str, str]]:
    rows = [
        ("model", version.model),
        ("version", ", ".join(version.names)),
        ("stage", stage),
        ("commit", version.entry.id),
        ("parents", ", ".join(parent[:12] for parent in version.entry.parents) or "none"),
        ("when", show.when(version.entry.at)),
        ("who", version.entry.author),
        ("why", version.entry.message.strip()),
        ("size", f"{show.amount(version.size)}, {version.tensors} tensors"),
        ("signed", "by a key that is trusted" if version.signed else "by nobody who is trusted"),
    ]
    return rows + [(key, json.dumps(value, ensure_ascii=False)) for key, value in version.metadata.items()]


def staged(names: Iterable[str], stages: Mapping[str, Stage]) -> str:
    """The stage of the version that has these names."""
    return next((stages[name].value for name in names if name in stages), Stage.DRAFT.value)
