"""Aliases: pointers at versions that move by compare-and-swap, and the way back that each has come.

An alias is a ref; its moves are signed commits under `refs/moves`, each with the ref or not at all. Knows nothing of
who serves an alias.
"""

from actors.registry.history import ALIASES, MOVES, Entry, named, numbered
from actors.registry.moves import FILE, Move, Moved, parse, way
from actors.registry.registry import Registry
from cluster.errors import Barred, Conflict, NotFound, listed


class Aliases:
    """The aliases of all models of `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def all(self, model: str) -> dict[str, str]:
        """The commit that each is at. Raises NotFound."""
        return self._registry.history(model).refs(ALIASES)

    def at(self, model: str, alias: str) -> str:
        """The commit that one is at. Raises NotFound."""
        there = self.all(model)
        if alias not in there:
            none = f"none: `strata models alias {model}@VERSION {alias}` makes it"
            raise NotFound("alias", f"{model}@{alias}", listed(there) or (none,))
        return there[alias]

    def revision(self, model: str, alias: str) -> str:
        """Another one after every move, though it come back to where it was. Raises NotFound."""
        return self._registry.history(model).refs(MOVES).get(alias) or self.at(model, alias)

    def move(
        self,
        model: str,
        alias: str,
        name: str,
        expected: str | None = None,
        *,
        author: str,
        reason: str = "",
        revision: str | None = None,
    ) -> Moved:
        """Point `alias` at the version that `name` names, if it is at the version `expected`, None for nowhere yet.

        With a `revision`, if it is at that. Of many that expect the same one wins. Raises what `Registry.trusted`
        does, and Conflict.
        """
        history, commit = self._registry.history(model), self._registry.trusted(model, name)
        before, at = history.resolve(expected) if expected else None, history.refs(MOVES).get(alias)
        now = history.refs(ALIASES).get(alias)
        if revision is None and before != now:
            raise self._elsewhere(model, alias, before, now)
        if revision is not None:
            before = self.at(model, alias)
            if (at or before) != revision:
                raise Conflict(f"{model}@{alias}", revision[:12], (at or before)[:12])
        move = Move(named("alias", alias), before, commit)
        return self._record(model, move, author, reason or f"Point {alias} at {name}", at)

    def rollback(
        self, model: str, alias: str, to: str | None = None, *, expected: str | None = None, author: str
    ) -> Moved:
        """Take an alias back to the version it was at before, or to the version `to`.

        Raises what `Registry.trusted` does, and Conflict where there is nothing before, or it is not at `expected`, or
        moved meanwhile.
        """
        history = self._registry.history(model)
        at, now = history.refs(MOVES).get(alias), self.at(model, alias)
        if expected and history.resolve(expected) != now:
            raise self._elsewhere(model, alias, history.resolve(expected), now)
        if to is None:
            come = way(move for _, move in reversed(self.log(model, alias)))
            if come[-1:] != [now]:
                self._registry.trusted(model, alias)  # says that it went astray
            if len(come) < 2:
                remedy = "name the version that it is to be at (--to)"
                raise Barred(f"{model}@{alias}", f"is at its first version, {self._number(model, now)}", remedy)
            to = come[-2]
        back = self._registry.trusted(model, to)
        move, reason = Move(alias, now, back, back=True), f"Roll {alias} back to {to if to != back else back[:12]}"
        return self._record(model, move, author, reason, at)

    def log(self, model: str, alias: str) -> list[tuple[Entry, Move]]:
        """Where an alias has been, the latest move first. Raises NotFound."""
        self.at(model, alias)
        history = self._registry.history(model)
        tip = history.refs(MOVES).get(alias)
        return [(entry, parse(history.files(entry.id)[FILE])) for entry in history.log(tip)] if tip else []

    def _elsewhere(self, model: str, alias: str, expected: str | None, now: str | None) -> Conflict:
        """What a move is told that names another version than its alias is at."""
        if now is None:
            return Barred(f"{model}@{alias}", "is not there yet", "make it without saying where from (--from)")
        wanted = f"not at {self._number(model, expected)}" if expected else "not new"
        number = self._number(model, now)
        return Barred(f"{model}@{alias}", f"is at {number} and {wanted}", f"move it from there (--from {number})")

    def _number(self, model: str, commit: str) -> str:
        names = numbered(self._registry.history(model))
        return next((name for name, known in names.items() if known == commit), commit[:12])

    def _record(self, model: str, move: Move, author: str, reason: str, at: str | None) -> Moved:
        history, alias = self._registry.history(model), {ALIASES + move.alias: (move.before, move.after)}
        signed = parse(history.files(at)[FILE]).after if at else None
        if move.before == move.after == signed:  # nothing happens, but both have to be where they were seen
            history.shift(alias | ({MOVES + move.alias: (at, at)} if at else {}))
            return Moved(move.before, move.after, at or move.after)
        made = self._registry.record(model, MOVES + move.alias, {FILE: move.text()}, author, reason, at, alias)
        return Moved(move.before, move.after, made)
