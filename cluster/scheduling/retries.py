"""How much of all work may be work done again: a budget, so that trying again never becomes the load itself.

As in Finagle, each request earns a share of a retry, and a few a second are always free; what was earned fades. A
stream that runs earns as a request a second does, or a fleet of long answers could not be taken up when a replica dies.
Knows counts and seconds on the caller's clock.
"""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rules:
    """`share` of a retry for each request; `free` retries a second besides. Both fade over `seconds`."""

    share: float = 0.2
    free: float = 10.0  # as Finagle's: where hardly anything is asked, a fifth of it is nothing
    seconds: float = 10.0


@dataclass(slots=True)
class Budget:
    """Retries that may be made. Not for use by several threads."""

    rules: Rules = field(default_factory=Rules)
    _left: float = -1.0  # until it is first asked for
    _since: float = 0.0

    def begun(self, now: float, running: int = 0) -> None:
        """A request came for the first time, and so many are under way."""
        self._pass(now, running)
        self._left += self.rules.share

    def take(self, now: float, running: int = 0) -> bool:
        """Whether something may be tried again now; then that is spent."""
        self._pass(now, running)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _pass(self, now: float, running: int) -> None:
        """What comes evenly in `now - since` seconds, and fades meanwhile as all there is."""
        rules = self.rules
        if self._left < 0.0:
            self._left, self._since = rules.free * rules.seconds, now
        kept = math.exp(-max(0.0, now - self._since) / rules.seconds)
        income = rules.free + rules.share * running
        self._left = self._left * kept + income * rules.seconds * (1.0 - kept)
        self._since = max(self._since, now)
