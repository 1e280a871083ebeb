"""The registry for those who ask from elsewhere: acts by name, each after its permission, plain values in and out.

Owns what an answer looks like. Knows principals. Knows no process and no wire: an actor and the gateway stand around.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.registry import requests, stages
from actors.registry.aliases import Aliases
from actors.registry.desk import Desk
from actors.registry.history import HEADS, Entry, numbered
from actors.registry.merging import Strategy
from actors.registry.moves import Moved
from actors.registry.permissions import allow
from actors.registry.registry import Registry
from actors.registry.requests import MergeRequest, Requirements
from actors.registry.stages import Stage, Stages
from cluster.condition import parse
from cluster.errors import InvalidRequest, Unavailable, sent
from cluster.security.keys import Principal

if TYPE_CHECKING:
    from actors.registry.catalogue import Catalogue

Answer = dict[str, Any]
MOST = 1000  # versions of an answer


@dataclass(frozen=True, slots=True)
class Place:
    """Where a registry is and what its merge requests want, as settings have it."""

    folder: str
    store: str | None = None
    metadata: str | None = None
    approvals: int = 1
    conditions: tuple[str, ...] = ()


def opened(place: Place) -> Registry:
    """The registry there, made where there is none. Raises SettingsInvalid and Unavailable."""
    try:
        return Registry(Path(place.folder), place.store)
    except OSError as wrong:
        problem = f"{wrong.strerror or wrong}; set registry.folder to one that can be written"
        raise Unavailable(f"the registry in {place.folder}", problem) from None


class Service:
    """One registry. Any number of threads may ask."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._registry = opened(place)
        wanted = tuple(parse(text, "registry.conditions") for text in place.conditions)
        self._desk = Desk(self._registry, Requirements(place.approvals, wanted))
        self._aliases, self._stages = Aliases(self._registry), Stages(self._registry)

    def ask(self, principal: Principal, act: str, given: Mapping[str, Any]) -> Answer:
        """Do `act` of ACTS with what it takes. Raises Forbidden, and whatever the act raises."""
        allow(principal, act)
        return ACTS[act](self, principal.name, **given)

    def list_models(self, _who: str) -> Answer:
        return _list([self.show_model(_who, model) for model in self._registry.models()])

    def show_model(self, _who: str, model: str) -> Answer:
        history = self._registry.history(model)
        names = numbered(history)
        aliases = {alias: _number(names, commit) for alias, commit in self._aliases.all(model).items()}
        branches = {branch: _number(names, commit) for branch, commit in history.refs(HEADS).items()}
        return {
            "object": "registry.model", "name": model, "versions": len(names), "aliases": aliases, "branches": branches
        }  # fmt: skip

    def list_versions(self, _who: str, model: str) -> Answer:
        history, known = self._registry.history(model), self._stages.all(model)
        names = numbered(history)
        latest = sorted(names, key=lambda name: -int(name[1:]))[:MOST]
        return _list([
            _version(model, name, next(history.log(names[name])), known.get(name, Stage.DRAFT), names)
            for name in latest
        ])  # fmt: skip

    def show_version(self, _who: str, model: str, version: str) -> Answer:
        found = self._registry.show(model, version)
        names = numbered(self._registry.history(model))
        number = _number(names, found.entry.id)
        stage = self._stages.all(model).get(number, Stage.DRAFT)
        more = {
            "names": list(found.names), "metadata": dict(found.metadata), "files": dict(found.files),
            "tensors": found.tensors, "size": found.size, "signed": found.signed,
        }  # fmt: skip
        return _version(model, number, found.entry, stage, names) | more

    def diff(self, _who: str, model: str, before: str, after: str) -> Answer:
        found = self._registry.diff(model, before, after)
        lines = {name: list(text[:MOST]) for name, text in found.lines.items()}
        tensors = {
            name: {
                "added": added,
                "removed": gone,
                "changed": changed,
                "norms": found.norms.get(name, {}),
                "not_finite": found.not_finite.get(name, {}),
            }
            for name, (added, gone, changed) in found.tensors.items()
        }
        numbers = {word: self._registry.number(model, name) for word, name in (("from", before), ("to", after))}
        return {"object": "registry.diff", "model": model, **numbers} | {
            "added": found.added, "removed": found.removed, "changed": found.changed, "lines": lines,
            "sizes": found.sizes, "entries": found.entries, "named": found.named,
            "metadata": found.metadata, "tensors": tensors,
        }  # fmt: skip

    def move_stage(self, who: str, model: str, version: str, stage: str, expected: str | None = None) -> Answer:
        before = stages.parse(expected) if expected is not None else None
        number, was, now = self._stages.move(model, version, stages.parse(stage), author=who, expected=before)
        return {"object": "registry.stage", "model": model, "version": number, "was": was.value, "stage": now.value}

    def list_aliases(self, who: str, model: str) -> Answer:
        return _list([self.show_alias(who, model, alias) for alias in self._aliases.all(model)])

    def show_alias(self, _who: str, model: str, alias: str) -> Answer:
        revision = self._aliases.revision(model, alias)
        return self._alias(model, alias, Moved(None, self._aliases.at(model, alias), revision))

    def _alias(self, model: str, alias: str, at: Moved) -> Answer:
        number = _number(numbered(self._registry.history(model)), at.commit)
        return {
            "object": "registry.alias", "model": model, "alias": alias, "version": number, "commit": at.commit,
            "revision": at.revision,
        }  # fmt: skip

    def alias_history(self, _who: str, model: str, alias: str) -> Answer:
        names = numbered(self._registry.history(model))
        return _list([
            {
                "object": "registry.move", "revision": entry.id, "from": move.before and _number(names, move.before),
                "to": _number(names, move.after), "back": move.back, "author": entry.author, "created": entry.at,
                "message": entry.message,
            }
            for entry, move in self._aliases.log(model, alias)
        ])  # fmt: skip

    def move_alias(self, who: str, model: str, alias: str, version: str, revision: str | None) -> Answer:
        """`revision`: what the alias is at as `show_alias` says it; None: it is not there yet."""
        return self._alias(model, alias, self._aliases.move(model, alias, version, author=who, revision=revision))

    def rollback_alias(self, who: str, model: str, alias: str, to: str | None = None) -> Answer:
        return self._alias(model, alias, self._aliases.rollback(model, alias, to, author=who))

    def search(self, _who: str, query: str, limit: int = 200) -> Answer:
        if limit < 1:
            raise InvalidRequest("limit", sent(limit), f"it is a whole number from 1; the answer has at most {MOST}")
        found = self._catalogue.search(query, min(limit, MOST))
        return _list([
            {"object": "registry.version"} | {name: getattr(each, name) for name in each.__slots__} for each in found
        ])  # fmt: skip

    def list_requests(self, _who: str, model: str) -> Answer:
        return _list([_request(model, number, each) for number, each in reversed(self._desk.all(model))])

    def show_request(self, _who: str, model: str, number: int) -> Answer:
        found, missing = self._desk.show(model, number)
        return _request(model, number, found) | {"missing": missing}

    def open_request(
        self, who: str, model: str, source: str, title: str, target: str = "main", strategy: str = "clean",
        weight: float | None = None,
    ) -> Answer:  # fmt: skip
        how = Strategy.wanted(strategy, weight)
        number = self._desk.open(model, source, title, author=who, target=target, strategy=how)
        return self.show_request(who, model, number)

    def review_request(self, who: str, model: str, number: int, approves: bool, comment: str = "") -> Answer:
        self._desk.review(model, number, principal=who, approves=approves, comment=comment)
        return self.show_request(who, model, number)

    def evaluate_request(
        self, who: str, model: str, number: int, metrics: Mapping[str, Any], of: str = "source"
    ) -> Answer:
        self._desk.evaluate(model, number, requests.figures(metrics), principal=who, of=of)
        return self.show_request(who, model, number)

    def merge_request(self, who: str, model: str, number: int) -> Answer:
        made = self._desk.merge(model, number, principal=who)
        return self.show_request(who, model, number) | {"version": made.version}

    def close_request(self, who: str, model: str, number: int) -> Answer:
        self._desk.close(model, number, principal=who)
        return self.show_request(who, model, number)

    def reopen_request(self, who: str, model: str, number: int) -> Answer:
        self._desk.reopen(model, number, principal=who)
        return self.show_request(who, model, number)

    @cached_property
    def _catalogue(self) -> "Catalogue":
        from actors.registry.catalogue import Catalogue  # noqa: PLC0415 - SQLAlchemy, where somebody searches

        return Catalogue(self._registry, self._place.metadata)


ACTS: dict[str, Callable[..., Answer]] = {
    each.__name__: each
    for each in (
        Service.list_models, Service.show_model, Service.list_versions, Service.show_version, Service.diff,
        Service.move_stage,
        Service.list_aliases, Service.show_alias, Service.alias_history, Service.move_alias, Service.rollback_alias,
        Service.search, Service.list_requests, Service.show_request, Service.open_request, Service.review_request,
        Service.evaluate_request, Service.merge_request, Service.close_request, Service.reopen_request,
    )
}  # fmt: skip


class Registrar:
    """The service as an actor of its own. Holds nothing that is not in the registry: it may be made again any time."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._service: Service | None = None

    async def ask(self, place: Place, principal: Principal, act: str, given: Mapping[str, Any]) -> Answer:
        """See `Service.ask`. `place`: as the one who asks has it in its settings."""
        if self._service is None or self._place != place:
            self._service, self._place = await asyncio.to_thread(Service, place), place
        return await asyncio.to_thread(self._service.ask, principal, act, given)


def _list(data: list[Answer]) -> Answer:
    return {"object": "list", "data": data}


def _version(model: str, number: str, entry: Entry, stage: Stage, names: Mapping[str, str]) -> Answer:
    return {
        "object": "registry.version", "model": model, "version": number, "commit": entry.id, "stage": stage.value,
        "parents": [_number(names, parent) for parent in entry.parents], "author": entry.author, "created": entry.at,
        "message": entry.message,
    }  # fmt: skip


def _request(model: str, number: int, found: MergeRequest) -> Answer:
    return {"object": "registry.merge_request", "model": model, "number": number} | asdict(found)


def _number(names: Mapping[str, str], commit: str) -> str:
    """The version that a commit is; the commit itself where it is none."""
    return next((name for name, known in names.items() if known == commit), commit)
