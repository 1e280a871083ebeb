"""How fast a queue moves: how long sequences of late kept their place, and how soon prompt tokens were computed.

By Little's law (1961) as many leave in a second as run, divided by the seconds that each stays. Knows counts and
seconds. Knows nothing of models or clocks.
"""

import math

LONGEST_SECONDS = 60  # nobody should be sent away for longer: the guess is too rough for that
_LEARN = 0.1
_LEARN_PACE = 0.05
_KEPT = 0.98  # of what earlier steps with prompts told, at each further one
_MEMORY_SECONDS = 3.0  # of whether somebody waited


def retry_after_seconds(waiting: int, running: int, stay_seconds: float) -> int:
    """When those who wait now will have their turn: whole seconds, 1 to `LONGEST_SECONDS`.

    waiting, running: sequences. stay_seconds: how long one runs, from its first step to its end.
    """
    seconds = waiting * stay_seconds / max(1, running)
    return max(1, math.ceil(min(seconds, LONGEST_SECONDS)))


class Stay:
    """How long sequences run: so many steps as those of late, each as long as steps are by now.

    Seconds of those that ended would be late by a whole answer where more of them run at once than did a moment ago.
    """

    def __init__(self) -> None:
        self._steps: float | None = None  # of one that ended
        self._pace: float | None = None  # seconds of a step

    def paced(self, seconds: float) -> None:
        """A step took that long, with what was between it and the one before."""
        known = self._pace
        self._pace = seconds if known is None else known + _LEARN_PACE * (seconds - known)

    def learn(self, steps: int) -> None:
        """One ended, for whatever reason, after so many steps, or in its first."""
        known, steps = self._steps, max(1, steps)
        self._steps = steps if known is None else known + _LEARN * (steps - known)

    @property
    def known(self) -> bool:
        """Whether any has ended."""
        return self._steps is not None

    def seconds(self, oldest: float) -> float:
        """What to expect. `oldest`: how long the one that runs longest has run by now, where none has ended yet."""
        return oldest if self._steps is None or self._pace is None else self._steps * self._pace


class Intake:
    """How fast prompts are computed beside all else that a step does, the steps of late counting most."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        """A step of so many seconds computed so many tokens of prompts; of steps without any nothing is learnt."""
        if tokens:
            self._tokens = _KEPT * self._tokens + tokens
            self._seconds = _KEPT * self._seconds + seconds

    @property
    def token_seconds(self) -> float:
        """What a prompt token takes; 0.0 while nothing is known."""
        return self._seconds / self._tokens if self._tokens else 0.0


class Standing:
    """The share of late time in which somebody waited, smoothed: a burst that drains is little, overload is all."""

    def __init__(self, now: float) -> None:
        self._share, self._waits, self._at = 0.0, False, now

    def share(self, now: float) -> float:
        """0 to 1."""
        kept = math.exp(-max(0.0, now - self._at) / _MEMORY_SECONDS)
        return kept * self._share + (1.0 - kept) * self._waits

    def learn(self, waits: bool, now: float) -> None:
        """From now on somebody waits, or nobody."""
        self._share, self._waits, self._at = self.share(now), waits, max(now, self._at)
