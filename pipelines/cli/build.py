"""`strata build`: compile, ahead of use, what is compiled for the machine it runs on.

Knows the two things that are: DeepSpeed's shared-memory collectives and our kernels. Both keep what they compiled.
"""

import time
from collections.abc import Callable

from pipelines.cli import show


def run() -> None:
    """Compile both, with a line before and after each."""
    _timed("collectives over shared memory (about a minute, once)", _collectives)
    _timed("kernels for this processor", _kernels)


def _collectives() -> None:
    from actors.models.parallel import build_collectives  # noqa: PLC0415 - torch

    build_collectives()


def _kernels() -> None:
    from actors.models import kernels  # noqa: PLC0415 - torch

    kernels.build(lambda text: show.progress(f"  {text}"))


def _timed(what: str, work: Callable[[], None]) -> None:
    started = time.monotonic()
    show.progress(f"Building {what}")
    work()
    show.progress(f"  ready after {time.monotonic() - started:.0f} s")
