"""Which version of a model is due to be released, and what its release means for stages and the alias that is live.

A version is due once: when it is merged, or an alias that is watched is moved to it, and it was never tried. What is
told here may be told again after a crash. Knows no traffic and no gateways.
"""

from dataclasses import dataclass

from actors.registry.aliases import Aliases
from actors.registry.desk import Desk
from actors.registry.history import HEADS, numbered
from actors.registry.registry import Registry
from actors.registry.requests import Requirements
from actors.registry.stages import Stage, Stages
from cluster.errors import Conflict

AUTHOR = "releases"  # who moves stages and aliases where a release does
_WAY = (Stage.CANDIDATE, Stage.CANARY, Stage.LIVE)  # from a draft or a retired version on


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that is to be released: its number, its commit, and the merge request that it came by, if one."""

    version: str
    commit: str
    request: int | None = None

    @property
    def cause(self) -> str:
        """Why it is released."""
        return f"!{self.request}" if self.request is not None else f"an alias at {self.version}"


class Candidates:
    """Of all models of `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._aliases, self._stages = Aliases(registry), Stages(registry)
        self._desk = Desk(registry, Requirements())

    def live(self, model: str, alias: str) -> str:
        """The version that an alias is at. Raises NotFound."""
        return self._registry.number(model, self._aliases.at(model, alias))

    def next(self, model: str, alias: str, on: str) -> Candidate | None:
        """What is being released to `alias`, else what is due: what `on`, a branch or an alias, is at.

        Of a branch only what a merge request brought counts: who may push to it may not release. Raises NotFound.
        """
        history = self._registry.history(model)
        names, live = numbered(history), self._aliases.at(model, alias)
        released = {entry.id for entry in history.log(live)}
        trying = [version for version, stage in self._stages.all(model).items() if stage is Stage.CANARY]
        for version in sorted(trying, key=lambda name: -int(name[1:])):
            if names[version] not in released:
                return Candidate(version, names[version], self._request(model, names[version]))
        tip = history.resolve(on)
        due = next((name for name, commit in names.items() if commit == tip), None)
        if due is None or tip in released or self._tried(model, due):
            return None
        request = self._request(model, tip)
        if request is None and on not in self._aliases.all(model):
            return None
        return Candidate(due, tip, request)

    def served(self, model: str, alias: str, on: str) -> tuple[str, ...]:
        """The versions that are to answer: who is live first, then what is due, if anything. Raises NotFound."""
        due = self.next(model, alias, on)
        return self.live(model, alias), *((due.version,) if due else ())

    def begin(self, model: str, version: str, cause: str) -> None:
        """Its release has begun: it is a canary, however far it was."""
        for to in (Stage.CANDIDATE, Stage.CANARY):
            at = self._stages.of(model, version)
            if at not in (Stage.CANARY, Stage.LIVE, to):
                self._stages.move(model, version, to, author=AUTHOR, expected=at, reason=f"Release {cause}")

    def stopped(self, model: str, version: str) -> tuple[str, str]:
        """Who took it out of its release by its stage while that was under way, and how; two times nothing if nobody.

        Asked of a release that has begun, which made it a canary: it can be no other by itself.
        """
        if (at := self._stages.of(model, version)) in (Stage.CANARY, Stage.LIVE):
            return "", ""
        by = self._stages.mover(model, version)
        return by, f"{by} moved {model}@{version} to the stage {at} during its release"

    def release(self, model: str, alias: str, old: str, new: str, cause: str) -> None:
        """The release that has begun has gone well: the alias goes from `old` to it, it is live, and `old` retires.

        Raises Conflict where the alias is at neither, or it is a canary no more: somebody else has moved it, and it
        stays there.
        """
        if self.live(model, alias) != new:
            if (at := self._stages.of(model, new)) not in (Stage.CANARY, Stage.LIVE):
                raise Conflict(f"{model}@{new}", Stage.CANARY.value, at.value)
            self._aliases.move(model, alias, new, old, author=AUTHOR, reason=f"Release {cause}")
        if self._stages.of(model, new) is Stage.CANARY:
            self._stages.move(model, new, Stage.LIVE, author=AUTHOR, reason=f"Release {cause}")
        if self._stages.of(model, old) is Stage.LIVE:
            self._stages.move(model, old, Stage.RETIRED, author=AUTHOR, reason=f"{new} has replaced it")

    def take_back(self, model: str, version: str, cause: str, reason: str) -> None:
        """Its release was taken back: it is a candidate that was tried, and is not released again by itself."""
        if not self._tried(model, version):
            self.begin(model, version, cause)
        if self._stages.of(model, version) is Stage.CANARY:
            self._stages.move(model, version, Stage.CANDIDATE, author=AUTHOR, reason=f"Take {cause} back: {reason}")

    def settle(self, model: str, alias: str) -> None:
        """Have stages say what is so where no release is under way: who is live is, and who was is retired.

        An alias is moved by people, too. A stage that somebody else has set stays as it is.
        """
        live, stages = self.live(model, alias), self._stages.all(model)
        others = [version for version, stage in stages.items() if stage is Stage.LIVE and version != live]
        aliases = self._aliases.all(model).values() if others else ()  # mostly there are none
        named = {self._registry.number(model, commit) for commit in aliases}
        for version in others:
            if version not in named and self._own(model, version):
                self._stages.move(
                    model, version, Stage.RETIRED, author=AUTHOR, expected=Stage.LIVE, reason=f"{live} has replaced it"
                )
        if stages.get(live) is not Stage.LIVE and self._own(model, live):
            at = stages.get(live, Stage.DRAFT)
            for to in _WAY[0 if at in (Stage.DRAFT, Stage.RETIRED) else _WAY.index(at) + 1 :]:
                self._stages.move(model, live, to, author=AUTHOR, expected=at, reason=f"{alias} is at it")
                at = to

    def _own(self, model: str, version: str) -> bool:
        return self._stages.mover(model, version) in ("", AUTHOR)

    def restore(self, model: str, version: str, alias: str, on: str, cause: str) -> str:
        """Have the branch `on` hold what is live again, where a merge request put the version there that was taken back
        and nothing came after it: the next merge would have it in it. The branch's next version, empty elsewhere.
        """
        history = self._registry.history(model)
        tip = history.refs(HEADS).get(on)
        if tip is None or tip != numbered(history)[version] or self._request(model, tip) is None:
            return ""
        live = self.live(model, alias)
        said = f"Take {cause} back: {on} holds what {live} does again"
        return self._registry.restore(model, live, author=AUTHOR, at=tip, branch=on, message=said)

    def _tried(self, model: str, version: str) -> bool:
        return any(stage in (Stage.CANARY, Stage.LIVE, Stage.RETIRED) for stage in self._stages.log(model, version))

    def _request(self, model: str, commit: str) -> int | None:
        return next((number for number, each in self._desk.all(model) if each.merged_as == commit), None)
