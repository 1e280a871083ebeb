"""Something that is done again and again while something else is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def ticking(tick: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `tick` every so many seconds, from a thread, for as long as the block runs."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(seconds):
            tick()

    thread = threading.Thread(target=go_on, name="ticking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
