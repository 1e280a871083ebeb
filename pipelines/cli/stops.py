"""The signals that ask a command to stop, and how it hears of them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interruptible() -> None:
    """Have every signal to stop arrive as KeyboardInterrupt, so that what is half made is cleared away."""
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)


@contextmanager
def held_back(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Signals wait for `sigtimedwait` inside."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
