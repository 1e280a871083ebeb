"""`strata models alias`, `rollback`, `history` and `stage`: which version is which.

Owns words. What may move where stands in `actors.registry`.
"""

from pathlib import Path

from actors.registry import stages
from actors.registry.aliases import Aliases
from actors.registry.stages import Stages
from actors.registry.words import checked
from cluster.errors import InvalidRequest
from pipelines.cli import show
from pipelines.cli.entrance import entered
from pipelines.cli.versions import split


def alias(reference: str, alias: str, expected: str | None, file: Path | None) -> None:
    """Point an alias at a version."""
    model, name = split(reference)
    _, registry, principal = entered(file, "move_alias")
    moved = Aliases(registry).move(model, alias, name, expected, author=principal)
    number = registry.number(model, moved.commit)
    there = f"was at {number} already" if moved.was == moved.commit else f"is {number}"
    show.line(f"{model}@{alias} {there} {moved.commit[:12]}")


def rollback(reference: str, to: str | None, file: Path | None, *, as_json: bool) -> None:
    """Take an alias back."""
    model, alias = aliased(reference)
    _, registry, principal = entered(file, "rollback_alias")
    moved = Aliases(registry).rollback(model, alias, to, author=principal)
    if as_json:
        show.document({"model": model, "alias": alias, "was": moved.was, "commit": moved.commit})
    else:
        names = " and is ".join(registry.number(model, commit) for commit in (moved.was, moved.commit) if commit)
        show.line(f"{model}@{alias} was {names} {moved.commit[:12]}")
        show.progress("users have it after `strata deploy`, or at once where it still stands after a release")


def history(reference: str, file: Path | None, *, as_json: bool) -> None:
    """Where an alias has been."""
    model, alias = aliased(reference)
    _, registry, _ = entered(file, "alias_history")
    moves = Aliases(registry).log(model, alias)
    if as_json:
        show.document([show.plain(entry) | show.plain(move) for entry, move in moves])
        return
    rows = [
        (
            registry.number(model, move.before) if move.before else "",
            registry.number(model, move.after),
            "back" if move.back else "",
            show.when(entry.at),
            entry.author,
            show.first(entry.message),
        )
        for entry, move in moves
    ]
    show.table(("from", "to", "", "when", "who", "why"), rows)


def stage(reference: str, to: str, expected: str | None, reason: str, file: Path | None, *, as_json: bool) -> None:
    """Bring a version to another stage."""
    model, name = split(reference)
    checked("--message", reason)
    _, registry, principal = entered(file, "move_stage")
    version, was, now = Stages(registry).move(
        model, name, stages.parse(to), author=principal, reason=reason,
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
