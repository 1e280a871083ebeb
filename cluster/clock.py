"""Time as a value that can be handed in, so that what depends on it is tested without waiting.

Knows two clocks, one that runs and one that is set. Knows nothing of what they time.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that never go back, and seconds since 1970."""

    def monotonic(self) -> float: ...

    def now(self) -> float: ...


class SystemClock:
    """The machine's own."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()


class SetClock:
    """Stands still until it is moved."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def monotonic(self) -> float:
        return self._seconds

    def now(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Move on; a clock never goes back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds:g} s")
        self._seconds += seconds
