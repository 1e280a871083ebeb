"""Users that get another version without a rollout: they follow when it answers, and who had them stays for a while.

So it is where an alias was moved by hand, to go back, say: at once where its version stands, else after a deploy.
Knows names, weights and the time of day. Knows no gateways.
"""

from collections.abc import Mapping, Sequence
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
