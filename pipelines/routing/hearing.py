"""What gateways have said: which routes they use, which versions have a replica there, and who has gone silent.

Knows names, revisions and one clock. Knows no rollout and no file.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.errors import Conflict

SILENCE_SECONDS = 5.0  # after which a gateway is gone: it reports ten times as often
GATHER_SECONDS = 2.0  # after a start, until every gateway that there is has been heard


@dataclass(slots=True)
class Told:
    """What one gateway said last: the revision that it uses, which versions have a replica there, and when."""

    revision: int
    ready: Mapping[str, bool]
    at: float


class Gateways:
    """All of them."""

    def __init__(self, clock: Callable[[], float], heard: Mapping[str, int]) -> None:
        """`heard`: the number of the last report of each that counted, as `numbers` has them."""
        self._clock, self._heard = clock, dict(heard)
        self._told: dict[str, Told] = {}
        self._warm: dict[str, float] = {}  # when a model's new version was last known to have a replica
        self._began = clock()

    def report(self, gateway: str, report: Mapping[str, Any]) -> bool:
        """Take what one says; whether its answers count: a report may come twice.

        While nobody spoke nobody could say that a version has a replica: that is no time without one.
        """
        if not self._told:
            self._warm = dict.fromkeys(self._warm, self._clock())
        self._told[gateway] = Told(report["revision"], report["ready"], self._clock())
        number = int(report["number"])
        new = number > self._heard.get(gateway, 0)
        if new:
            self._heard[gateway] = number
        return new

    def forget(self) -> None:
        """Those that have been silent for too long."""
        now = self._clock()
        self._told = {name: told for name, told in self._told.items() if now - told.at <= SILENCE_SECONDS}

    @property
    def numbers(self) -> dict[str, int]:
        """The number of the last report that counted, of those that are there or may be."""
        self._heard = {name: number for name, number in self._heard.items() if name in self._told or not self._told}
        return self._heard

    def know(self, revision: int) -> bool:
        """Whether every one uses the routes of this revision, or later ones."""
        everybody = self._everybody()
        return bool(everybody) and all(told.revision >= revision for told in everybody)

    def ready(self, model: str, version: str) -> bool:
        """Whether every one has a replica."""
        everybody = self._everybody()
        return bool(everybody) and all(told.ready.get(_full(model, version)) for told in everybody)

    def answers(self, model: str, version: str) -> bool:
        """Whether every one that knows it has a replica, and there is such a one: others go on with what they know."""
        said = [told.ready[name] for told in self._everybody() if (name := _full(model, version)) in told.ready]
        return bool(said) and all(said)

    def begin(self, model: str) -> None:
        """A new version of this model is looked for from now on."""
        self._warm[model] = self._clock()

    def look(self, model: str, new: str) -> None:
        """Note whether anybody has a replica of the version that is looked for."""
        if any(told.ready.get(_full(model, new)) for told in self._told.values()):
            self._warm[model] = self._clock()

    def lost(self, model: str) -> float:
        """For how many seconds nobody has had one."""
        now = self._clock()
        return now - self._warm.setdefault(model, now) if self._everybody() else 0.0

    def require(self, model: str, versions: Collection[str], served: Sequence[str]) -> None:
        """Raises Conflict for a version of which no gateway has a replica; while none has said, all may have."""
        said = {version: self._said(_full(model, version)) for version in served}
        for version in sorted(versions):
            if said[version] and not any(said[version]):
                others = ", ".join(each for each in served if any(said[each])) or "none"
                raise Conflict(f"{model}@{version}", "ready", f"without a replica (ready: {others})")

    def _said(self, name: str) -> list[bool]:
        return [told.ready[name] for told in self._told.values() if name in told.ready]

    def _everybody(self) -> list[Told]:
        """Those that are there; nobody until all that there are can have been heard."""
        return list(self._told.values()) if self._clock() - self._began >= GATHER_SECONDS else []


def _full(model: str, version: str) -> str:
    return f"{model}@{version}"
