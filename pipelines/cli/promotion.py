"""`strata models alias`, `rollback`, `history` and `stage`: which version is which.

Owns words. What may move where stands in `actors.registry`.
"""

from pathlib import Path

from actors.registry import stages
from actors.registry.aliases import Aliases
from actors.registry.stages import Stages
from cluster.errors import InvalidRequest
from pipelines.cli import show
from pipelines.cli.config import settle
from pipelines.cli.versions import first, opened, plain, split, when, who
from pipelines.versions import registry_of


def alias(reference: str, alias: str, expected: str | None, file: Path | None) -> None:
    """Point an alias at a version."""
    model, name = split(reference)
    settings = settle(file).settings
    own = Aliases(registry_of(settings))
    commit = own.move(model, alias, name, expected, author=who(settings.cluster))
    show.line(f"{model}@{alias} is {commit[:12]}")


def rollback(reference: str, to: str | None, file: Path | None, *, as_json: bool) -> None:
    """Take an alias back."""
    model, alias = aliased(reference)
    settings = settle(file).settings
    registry = registry_of(settings)
    was, now = Aliases(registry).rollback(model, alias, to, author=who(settings.cluster))
    if as_json:
        show.document({"model": model, "alias": alias, "was": was, "commit": now})
    else:
        names = [registry.number(model, commit) for commit in (was, now)]
        show.line(f"{model}@{alias} was {names[0]} and is {names[1]} {now[:12]}; deploy to have it served")


def history(reference: str, file: Path | None, *, as_json: bool) -> None:
    """Where an alias has been."""
    model, alias = aliased(reference)
    registry = opened(file)
    moves = Aliases(registry).log(model, alias)
    if as_json:
        show.document([plain(entry) | plain(move) for entry, move in moves])
        return
    rows = [
        (
            registry.number(model, move.before) if move.before else "",
            registry.number(model, move.after),
            "back" if move.back else "",
            when(entry.at),
            entry.author,
            first(entry.message),
        )
        for entry, move in moves
    ]
    show.table(("from", "to", "", "when", "who", "why"), rows)


def stage(reference: str, to: str, expected: str | None, reason: str, file: Path | None, *, as_json: bool) -> None:
    """Bring a version to another stage."""
    model, name = split(reference)
    settings = settle(file).settings
    own = Stages(registry_of(settings))
    version, was, now = own.move(
        model, name, stages.parse(to), author=who(settings.cluster), reason=reason,
        expected=stages.parse(expected) if expected else None,
    )  # fmt: skip
    if as_json:
        show.document({"model": model, "version": version, "was": was, "stage": now})
    else:
        show.line(f"{model}@{version} was {was} and is {now}")


def aliased(reference: str) -> tuple[str, str]:
    """The model and the alias of `chat@prod`. Raises InvalidRequest where it names none."""
    if "@" not in reference:
        raise InvalidRequest("MODEL@ALIAS", reference, f"name the alias, such as {reference}@prod")
    return split(reference)
