"""`strata models search` and `reindex`, and the metadata that a push takes along.

Owns words. What is known of a version, and how it is searched, stands in `actors.registry`.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from actors.registry.registry import Registry
from cluster import document
from cluster.errors import InvalidRequest, StrataError
from pipelines.cli import show
from pipelines.cli.entrance import entered
from pipelines.settings import Settings
from pipelines.versions import catalogue_of


def facts(pairs: list[str]) -> dict[str, Any]:
    """`key=value` as metadata; a value that is JSON counts as what it says. Raises InvalidRequest."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InvalidRequest("--meta", pair, "write it as key=value")
        if key in found:
            raise InvalidRequest("--meta", pair, f"{key} is there already; give it once, several values as key=[...]")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def described_in(file: Path) -> dict[str, Any]:
    """Metadata of a JSON or YAML file. Raises InvalidRequest."""
    try:
        found = document.value(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as wrong:
        said = str(wrong).partition("\n")[0]
        raise InvalidRequest("--facts", str(file), f"it cannot be read as JSON or YAML: {said}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InvalidRequest("--facts", str(file), "it holds no keys with values")
    return found


def catalogued(settings: Settings, registry: Registry) -> None:
    """Have the catalogue know what is new. The version is there already: that a database is away does not undo it."""
    try:
        catalogue_of(settings, registry).refresh()
    except StrataError as wrong:
        show.progress(escape(f"the catalogue follows later: {wrong}"))


def search(query: str, limit: int, file: Path | None, *, as_json: bool) -> None:
    """Which versions a query holds for."""
    settings, registry, _ = entered(file, "search")
    found = catalogue_of(settings, registry).search(query, limit)
    if as_json:
        show.document([show.plain(each) for each in found])
        return
    rows = [
        (
            f"{each.model}@{each.version}",
            each.stage,
            each.license or "",
            show.when(each.at),
            each.author,
            show.first(each.message),
        )
        for each in found
    ]
    show.table(("version", "stage", "license", "when", "who", "why"), rows)
    if len(found) == limit:
        show.line(f"[dim]the first {limit}; --limit says how many[/]")


def reindex(file: Path | None) -> None:
    """Read all metadata again."""
    settings, registry, _ = entered(file, "reindex")
    show.line(f"{catalogue_of(settings, registry).rebuild()} versions are in the catalogue")
