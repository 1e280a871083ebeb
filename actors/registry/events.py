"""What has happened in a registry since somebody looked, read from its history: nobody who acts has to tell of it.

An event has the same id whoever reads it. Knows commits and refs. Knows nothing of who wants to hear.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from actors.registry.history import EVERY, HEADS, MOVES, REQUESTS, STAGES, TAGS, Entry, History, numbered
from actors.registry.settings import KINDS

_PARTS = (("reviewed", "reviews"), ("evaluated", "evaluations"))  # what of a merge request an event changes
Marks = dict[str, str]  # by ref: the commit that it was at


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a model: `kind` of KINDS, when (seconds since 1970), and what is known of it."""

    kind: str
    model: str
    at: int
    data: Mapping[str, Any]
    source: str  # the commit, or the ref and its commit, that tells of it

    @property
    def id(self) -> str:
        """The same one whenever it is read."""
        told = "\0".join((self.kind, self.model, self.source))
        return f"evt_{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def marks(history: History) -> Marks:
    """Where all refs of a model are."""
    return {kind + name: commit for kind in EVERY for name, commit in history.refs(kind).items()}


def since(model: str, history: History, before: Marks, now: Marks) -> list[Event]:
    """What led from one state of a model's refs to another, the earliest first."""
    names = {commit: version for version, commit in numbered(history).items()}
    found = [
        event
        for ref, commit in now.items()
        if before.get(ref) != commit
        for event in _of_ref(model, history, names, ref, before.get(ref), commit)
    ]
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(found, key=lambda event: (event.at, order[event.kind]))


def _of_ref(
    model: str, history: History, names: Mapping[str, str], ref: str, before: str | None, commit: str
) -> Iterator[Event]:
    for kind, read in ((MOVES, _alias), (STAGES, _stage), (REQUESTS, _request)):
        if ref.startswith(kind):
            for entry in _new(history, before, commit):
                yield from read(model, history, names, ref.removeprefix(kind), entry)
            return
    for kind, event in ((TAGS, "tag"), (HEADS, "branch")):
        if ref.startswith(kind) and before is None:
            name, entry = ref.removeprefix(kind), next(history.log(commit))
            numbered_so = kind == TAGS and names.get(commit) == name
            data = _data(model, names, commit, entry) | ({} if numbered_so else {event: name})
            yield Event("version.created" if numbered_so else f"{event}.created", model, entry.at, data, ref + commit)


def _new(history: History, before: str | None, commit: str) -> list[Entry]:
    """The commits that came after one."""
    found = []
    for entry in history.log(commit):
        if entry.id == before:
            break
        found.append(entry)
    return found[::-1]


def _alias(model: str, history: History, names: Mapping[str, str], name: str, entry: Entry) -> Iterator[Event]:
    move = _json(history, entry, "move.json")
    more = {"alias": name, "from": names.get(move.get("before") or ""), "back": bool(move.get("back"))}
    data = _data(model, names, str(move.get("after")), entry) | more
    yield Event("alias.moved", model, entry.at, data, entry.id)


def _stage(model: str, history: History, names: Mapping[str, str], name: str, entry: Entry) -> Iterator[Event]:
    move = _json(history, entry, "stage.json")
    commit = next((commit for commit, version in names.items() if version == name), "")
    more = {"was": move.get("was"), "stage": move.get("stage")}
    yield Event("stage.moved", model, entry.at, _data(model, names, commit, entry) | more, entry.id)


def _request(model: str, history: History, names: Mapping[str, str], name: str, entry: Entry) -> Iterator[Event]:
    now = _json(history, entry, "request.json")
    was = _json(history, next(history.log(entry.parents[0])), "request.json") if entry.parents else {}
    if not was:
        happened = "opened"
    elif was.get("state") != now.get("state"):
        happened = "reopened" if now.get("state") == "open" else str(now.get("state"))
    else:
        happened = next((event for event, part in _PARTS if was.get(part) != now.get(part)), "")
    if f"merge_request.{happened}" not in KINDS:
        return
    data = _data(model, names, str(now.get("merged_as") or ""), entry)
    more = {"number": int(name), **{key: now.get(key) for key in ("title", "source", "target", "state")}}
    yield Event(f"merge_request.{happened}", model, entry.at, data | more, entry.id)


def _data(model: str, names: Mapping[str, str], commit: str, entry: Entry) -> dict[str, Any]:
    version = {"version": names.get(commit), "commit": commit} if commit else {}
    return {"model": model, **version, "author": entry.author, "message": entry.message}


def _json(history: History, entry: Entry, file: str) -> dict[str, Any]:
    try:
        found = json.loads(history.files(entry.id)[file])
    except (ValueError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}
