"""`strata models search` and `reindex`, and the metadata that a push takes along.

Owns words. What is known of a version, and how it is searched, stands in `actors.registry`.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from actors.registry import tree
from actors.registry.registry import Registry
from cluster import document
from cluster.errors import InvalidRequest, StrataError
from pipelines.cli import show
from pipelines.cli.entrance import entered
from pipelines.settings import Settings
from pipelines.versions import catalogue_of


def facts(pairs: list[str]) -> dict[str, Any]:
    """`--meta` as metadata: see `paired`; several values of a key are a list."""
    return paired(pairs, "--meta", "key=value", "give it once, several values as key=[...]")


def paired(pairs: list[str], field: str, form: str, once: str) -> dict[str, Any]:
    """`key=value` by key; a value that is JSON counts as what it says. Raises InvalidRequest of `field`."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key.strip() or not equals:
            raise InvalidRequest(field, pair, f"write it as {form}")
        if key in found:
            raise InvalidRequest(field, pair, f"{key} is there already; {once}")
        try:
            found[key] = json.loads(value)
        except (ValueError, RecursionError):
            found[key] = value
    return found


def described_in(file: Path) -> dict[str, Any]:
    """Metadata of a JSON or YAML file. Raises InvalidRequest naming the file, and of YAML that is none the place."""
    field = f"--facts {file}"
    try:
        found = document.value(file.read_text("utf-8"))
    except OSError as wrong:
        raise InvalidRequest(field, wrong.strerror or str(wrong), "name a JSON or YAML file") from None
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidRequest(
            field + where, wrong.problem or "no YAML", "write it as JSON, or as YAML: `key: value`"
        ) from None
    except RecursionError:
        raise InvalidRequest(field, "deep nesting", f"nest at most {tree.MOST_DEPTH} levels") from None
    except (ValueError, TypeError, yaml.YAMLError) as wrong:
        said = str(wrong).partition("\n")[0]
        raise InvalidRequest(field, said, "write it as JSON or YAML, in UTF-8") from None
    if not isinstance(found, dict):
        raise InvalidRequest(field, "what holds no keys with values", "write `key: value`, a line each")
    try:
        tree.check(found)
    except InvalidRequest as wrong:
        place = wrong.field.removeprefix("metadata").strip()
        raise InvalidRequest(f"{field}: {place}" if place else field, wrong.value, wrong.remedy) from None
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
    catalogue = catalogue_of(settings, registry)
    if aside := catalogue.set_aside():
        show.line(f"the catalogue was broken; what there was lies in {escape(str(aside))}")
    show.line(f"{catalogue.rebuild()} versions are in the catalogue")
