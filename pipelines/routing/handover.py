"""Users that get another version without a rollout: they follow when it answers, and who had them stays for a while.

So it is where an alias was moved by hand, to go back, say: at once where its version stands, else after a deploy.
Knows names, weights and the time of day. Knows no gateways.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluster.errors import Barred


@dataclass(frozen=True, slots=True)
class Handover:
    """Of one model. `to`: the weights that its users get, `by` what. `left`: who had them until then, at `at`."""

    to: Mapping[str, float]
    by: str
    left: tuple[str, ...] = ()
    at: float | None = None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Handover":
        """From plain values."""
        return cls(dict(plain["to"]), plain.get("by", "the settings"), tuple(plain["left"]), plain["at"])

    @property
    def plain(self) -> dict[str, Any]:
        """In plain values."""
        return asdict(self)

    def done(self, had: Sequence[str], now: float) -> "Handover":
        """The users, who had these versions, have got theirs."""
        return replace(self, left=tuple(version for version in had if version not in self.to), at=now)

    def barred(self, model: str) -> Barred:
        """What is told who wants the users meanwhile."""
        to = " and ".join(self.to)
        remedy = "wait for it (`strata status` says what for), or move its alias back and `strata deploy`"
        return Barred(model, f"has users who go to {to} as soon as it answers", remedy)


class Handovers:
    """Those of all models, one each: that which is to come, or else the last."""

    def __init__(self) -> None:
        self._found: dict[str, Handover] = {}

    def set(self, model: str, to: Mapping[str, float], by: str) -> None:
        """The users of a model get these weights as soon as that answers."""
        self._found[model] = Handover(to, by)

    def keep(self, model: str, plain: Mapping[str, Any]) -> None:
        """One from before a restart, in plain values."""
        self._found[model] = Handover.of(plain)

    def follow(self, model: str) -> tuple[str, ...]:
        """The versions that its users get as soon as these answer; none where they have what they were given."""
        found = self._found.get(model)
        return tuple(found.to) if found and found.at is None else ()

    def left(self, model: str) -> tuple[tuple[str, ...], float | None]:
        """Who had the users until the last handover, and when that was; None where none has been."""
        found = self._found.get(model)
        return (found.left, found.at) if found else ((), None)

    def settled(self, model: str) -> None:
        """Raises Barred while its users are to go to what does not answer yet."""
        if self.follow(model):
            raise self._found[model].barred(model)

    def due(self, answers: Callable[[str, str], bool]) -> Iterator[tuple[str, Handover]]:
        """Those that may take place now, as each version of theirs `answers`."""
        for model, found in self._found.items():
            if found.at is None and all(answers(model, version) for version in found.to):
                yield model, found

    def done(self, model: str, had: Sequence[str], now: float) -> None:
        """The users, who had these versions, have got theirs."""
        self._found[model] = self._found[model].done(had, now)

    @property
    def plain(self) -> dict[str, Any]:
        """In plain values."""
        return {model: found.plain for model, found in self._found.items()}
