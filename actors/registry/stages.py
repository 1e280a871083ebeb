"""How far a version has come: a table of stages and legal moves, and where each version's stage is kept.

A stage is a ref of the model's repository, each move a signed commit that says who, when and why. Without one, a
version is a draft. Knows nothing of traffic: what serves a stage asks here.
"""

import json
from enum import StrEnum

from actors.registry.history import STAGES
from actors.registry.registry import Registry
from cluster.errors import Conflict, IllegalMove, InvalidRequest, ModelInvalid

FILE = "stage.json"


class Stage(StrEnum):
    """Of a version."""

    DRAFT = "draft"
    CANDIDATE = "candidate"
    CANARY = "canary"
    LIVE = "live"
    RETIRED = "retired"


MOVES = {
    (Stage.DRAFT, "proposed"): Stage.CANDIDATE,
    (Stage.DRAFT, "discarded"): Stage.RETIRED,
    (Stage.CANDIDATE, "withdrawn"): Stage.DRAFT,
    (Stage.CANDIDATE, "tried"): Stage.CANARY,
    (Stage.CANDIDATE, "discarded"): Stage.RETIRED,
    (Stage.CANARY, "released"): Stage.LIVE,
    (Stage.CANARY, "taken back"): Stage.CANDIDATE,
    (Stage.CANARY, "discarded"): Stage.RETIRED,
    (Stage.LIVE, "taken back"): Stage.CANDIDATE,
    (Stage.LIVE, "replaced"): Stage.RETIRED,
    (Stage.RETIRED, "revived"): Stage.CANDIDATE,
}


def parse(text: str) -> Stage:
    """Raises InvalidRequest."""
    try:
        return Stage(text)
    except ValueError:
        raise InvalidRequest("stage", text, f"take one of {', '.join(Stage)}") from None


def event(what: str, at: Stage, to: Stage) -> str:
    """What happens to `what` when it goes from one stage to another. Raises IllegalMove with the legal ones."""
    found = next((name for (stage, name), then in MOVES.items() if (stage, then) == (at, to)), None)
    if found is None:
        raise IllegalMove(
            what, at.value, to.value, tuple(then.value for (stage, _), then in MOVES.items() if stage is at)
        )
    return found


class Stages:
    """The stages of all versions of `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def all(self, model: str) -> dict[str, Stage]:
        """By version (`v1`, `v2`), of those that are no drafts any more. Raises NotFound."""
        history = self._registry.history(model)
        return {version: _read(history.files(commit)[FILE]) for version, commit in history.refs(STAGES).items()}

    def of(self, model: str, name: str) -> Stage:
        """Of the version that `name` names. Raises NotFound."""
        return self._at(model, self._registry.number(model, name))[1]

    def log(self, model: str, name: str) -> list[Stage]:
        """Where the version that `name` names has been, the latest first. Raises NotFound."""
        commit = self._at(model, self._registry.number(model, name))[0]
        history = self._registry.history(model)
        return [_read(history.files(entry.id)[FILE]) for entry in history.log(commit)] if commit else []

    def mover(self, model: str, name: str) -> str:
        """Who brought the version that `name` names to its stage; nobody where it is a draft yet. Raises NotFound."""
        commit = self._at(model, self._registry.number(model, name))[0]
        return next(self._registry.history(model).log(commit)).author if commit else ""

    def move(
        self, model: str, name: str, to: Stage, *, author: str, expected: Stage | None = None, reason: str = ""
    ) -> tuple[str, Stage, Stage]:
        """Bring a version from the stage it is at to another; its number, and both. Of many at once one does.

        Raises what `Registry.trusted` does, IllegalMove, and Conflict where it is elsewhere, or moved meanwhile.
        """
        version = self._registry.number(model, self._registry.trusted(model, name))
        commit, at = self._at(model, version)
        what = f"{model}@{version}"
        if expected is not None and at is not expected:
            raise Conflict(what, expected.value, at.value)
        happened = event(what, at, to)
        content = {FILE: json.dumps({"version": version, "stage": to.value, "was": at.value}, indent=2).encode()}
        message = reason or f"{what} is {happened}: {to}"
        self._registry.record(model, STAGES + version, content, author, message, commit)
        return version, at, to

    def _at(self, model: str, version: str) -> tuple[str | None, Stage]:
        history = self._registry.history(model)
        commit = history.refs(STAGES).get(version)
        return commit, _read(history.files(commit)[FILE]) if commit else Stage.DRAFT


def _read(text: bytes) -> Stage:
    try:
        return Stage(json.loads(text)["stage"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise ModelInvalid("the stage of a version", f"cannot be read ({wrong})", "move it again") from None
