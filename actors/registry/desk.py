"""Where merge requests are kept: each a ref of the model's repository, each event a signed commit with all of it.

Owns the order of read, decide and write, where whoever comes second is told so. Decisions stand in `requests`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from actors.registry import requests
from actors.registry.history import HEADS, MAIN, REQUESTS
from actors.registry.merging import Strategy
from actors.registry.pieces import Progress, quietly
from actors.registry.registry import Pushed, Registry
from actors.registry.requests import Evaluation, MergeRequest, Requirements, Review, State
from cluster.errors import Barred, Conflict, InvalidRequest, ModelInvalid, NotFound, listed

FILE = "request.json"


class Desk:
    """The merge requests of all models of `registry`, which want what `requirements` say."""

    def __init__(self, registry: Registry, requirements: Requirements) -> None:
        self._registry, self._requirements = registry, requirements

    def open(
        self, model: str, source: str, title: str, *, author: str, target: str = MAIN, strategy: Strategy | None = None
    ) -> int:
        """Ask that the branch `source` go into `target`; the number. Raises NotFound."""
        how = strategy or Strategy()
        if how.name == "lora":
            raise InvalidRequest("strategy", how.name, "merge the adapter into a branch, then ask for that branch")
        made = requests.opened(title, source, target, author, how.name, how.weight)
        self._tip(model, source)
        self._tip(model, target)
        number = max((int(name) for name in self._registry.history(model).refs(REQUESTS)), default=0) + 1
        self._registry.record(model, f"{REQUESTS}{number}", {FILE: made.text()}, author, f"Open: {title}", None)
        return number

    def all(self, model: str) -> list[tuple[int, MergeRequest]]:
        """With their numbers. Raises NotFound."""
        history = self._registry.history(model)
        return [
            (int(name), requests.parse(history.files(commit)[FILE]))
            for name, commit in sorted(history.refs(REQUESTS).items(), key=lambda item: int(item[0]))
        ]

    def show(self, model: str, number: int) -> tuple[MergeRequest, list[str]]:
        """One, and what it still needs, decisions on what both branches changed among it. Raises NotFound."""
        found = self._read(model, number)[1]
        if found.state is not State.OPEN:
            return found, []
        return found, [*self._missing(model, found), *self._undecided(model, found)]

    def review(self, model: str, number: int, *, principal: str, approves: bool, comment: str = "") -> MergeRequest:
        """Say what `principal` thinks of the version that the source is at now. Raises InvalidRequest and Conflict."""

        def reviewed(found: MergeRequest) -> MergeRequest:
            return found.reviewed(Review(principal, self._tip(model, found.source), approves, comment))

        return self._change(model, number, principal, "Approve" if approves else "Refuse", reviewed)

    def evaluate(
        self, model: str, number: int, metrics: Mapping[str, Any], *, principal: str, of: str = "source"
    ) -> MergeRequest:
        """Keep figures of the version that the source is at, or the target. Raises InvalidRequest and Conflict."""
        if of not in ("source", "target"):
            raise InvalidRequest("of", of, "take source or target")
        figures = requests.figures(metrics)

        def evaluated(found: MergeRequest) -> MergeRequest:
            return found.evaluated(Evaluation(self._tip(model, getattr(found, of)), figures))

        return self._change(model, number, principal, "Evaluate", evaluated)

    def close(self, model: str, number: int, *, principal: str) -> MergeRequest:
        """Give it up. Raises Conflict where it is merged or closed."""
        return self._change(model, number, principal, "Close", lambda found: found.moved("closed"))

    def reopen(self, model: str, number: int, *, principal: str) -> MergeRequest:
        """Take it up again. Raises Conflict where it is not closed."""
        return self._change(model, number, principal, "Reopen", lambda found: found.moved("reopened"))

    def merge(self, model: str, number: int, *, principal: str, progress: Progress = quietly) -> Pushed:
        """Make of both branches the target's next version. Raises Conflict with what it still needs, and what
        `Registry.merge` does.

        Where whoever merged died before it was written here, that version is the one.
        """
        at, found = self._read(model, number)
        found.moved("merged")
        if missing := self._missing(model, found):
            raise Barred(f"the merge request !{number}", f"still needs {'; '.join(missing)}", "see to that, then merge")
        there = self._merged(model, found)
        made = self._made(model, there[0]) if there else self._registry.merge(
            model, found.source, author=principal, branch=found.target,
            strategy=Strategy(found.strategy, found.weight), message=f"Merge !{number}: {found.title}",
            progress=progress,
        )  # fmt: skip
        done = found.moved("merged", merged_as=made.commit)
        self._registry.record(model, f"{REQUESTS}{number}", {FILE: done.text()}, principal, "Merge", at)
        return made

    def _change(
        self, model: str, number: int, principal: str, reason: str, change: Callable[[MergeRequest], MergeRequest]
    ) -> MergeRequest:
        """Nothing is written of a change that changes nothing: nothing has happened."""
        at, found = self._read(model, number)
        made = change(found)
        if made == found:
            return found
        self._registry.record(model, f"{REQUESTS}{number}", {FILE: made.text()}, principal, reason, at)
        return made

    def _read(self, model: str, number: int) -> tuple[str, MergeRequest]:
        history = self._registry.history(model)
        there = history.refs(REQUESTS)
        if str(number) not in there:
            raise NotFound("merge request", f"!{number} of {model}", listed(f"!{name}" for name in there))
        commit = there[str(number)]
        return commit, requests.parse(history.files(commit)[FILE])

    def _missing(self, model: str, found: MergeRequest) -> list[str]:
        there = self._merged(model, found)
        target = there[1] if there else self._tip(model, found.target)
        return self._requirements.missing(found, self._tip(model, found.source), target)

    def _undecided(self, model: str, found: MergeRequest) -> list[str]:
        """What keeps the versions that both branches are at from being one, a line each."""
        if self._merged(model, found):
            return []
        how = Strategy(found.strategy, found.weight)
        try:
            clashes = self._registry.clashes(model, found.source, branch=found.target, strategy=how)
        except (Conflict, ModelInvalid) as wrong:
            return [f"versions that can be merged ({wrong})"]
        return [f"a decision on {clash}" for clash in clashes]

    def _merged(self, model: str, found: MergeRequest) -> tuple[str, str] | None:
        """The version of the target that the source's tip was merged into, and the one before; None: there is none.

        Only what the target itself has been counts, and not what was merged into it: that is another branch's merge.
        """
        source, history = self._tip(model, found.source), self._registry.history(model)
        commit = self._tip(model, found.target)
        while parents := history.parents(commit):
            if source in parents[1:]:
                return commit, parents[0]
            commit = parents[0]
        return None

    def _made(self, model: str, commit: str) -> Pushed:
        version = self._registry.number(model, commit)
        return Pushed(version, commit, self._registry.show(model, commit).size, 0, new=False)

    def _tip(self, model: str, branch: str) -> str:
        there = self._registry.history(model).refs(HEADS)
        if branch not in there:
            raise NotFound("branch", f"{model}@{branch}", listed(there))
        return there[branch]
