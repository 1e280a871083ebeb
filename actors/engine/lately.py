"""How long sequences waited of late, how long they were until their first token, how many came a second.

Told of each sequence three times, never of a token. Asked from any thread; what nobody asks for is forgotten after one
to two `WINDOW_SECONDS`, so that a burst which is over is not reported for ever.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Of:
    """Of late: the mean seconds in the queue or, if that is longer, those of who waits there longest; and so on."""

    waited: float = 0.0
    first_token: float = 0.0
    per_second: float = 0.0


@dataclass(slots=True)
class _Window:
    began: float
    came: int = 0
    joined: int = 0
    waited: float = 0.0
    answered: int = 0
    until_first: float = 0.0


class Lately:
    """Two windows, of which the younger is being filled."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        now = clock()
        self._old, self._new = _Window(now - WINDOW_SECONDS), _Window(now)
        self._waiting: dict[int, float] = {}  # when each came that waits, oldest first

    def came(self, key: int) -> None:
        """A sequence was queued."""
        with self._lock:
            window = self._window()
            window.came += 1
            self._waiting[key] = self._clock()

    def joined(self, key: int) -> None:
        """It is computed from now on; also of one that was put back and joins again, which waits for nobody's sake."""
        with self._lock:
            came = self._waiting.pop(key, None)
            if came is not None:
                window = self._window()
                window.joined += 1
                window.waited += self._clock() - came

    def answered(self, seconds: float) -> None:
        """One has its first token, so long after it came."""
        with self._lock:
            window = self._window()
            window.answered += 1
            window.until_first += seconds

    def left(self, key: int) -> None:
        """It is over, whether it was computed or not."""
        if key in self._waiting:
            with self._lock:
                self._waiting.pop(key, None)

    def ask(self) -> Of:
        """How it is now."""
        with self._lock:
            new, old, now = self._window(), self._old, self._clock()
            oldest = next(iter(self._waiting.values()), now)
            joined, answered = new.joined + old.joined, new.answered + old.answered
            return Of(
                max((new.waited + old.waited) / max(1, joined), now - oldest),
                (new.until_first + old.until_first) / max(1, answered),
                (new.came + old.came) / (now - old.began),
            )

    def _window(self) -> _Window:
        now = self._clock()
        if now - self._new.began >= WINDOW_SECONDS:
            lapsed = now - self._new.began >= 2 * WINDOW_SECONDS
            self._old = _Window(now - WINDOW_SECONDS) if lapsed else self._new
            self._new = _Window(now)
        return self._new
