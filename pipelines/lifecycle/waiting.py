"""Work that a step hands to the cluster: until it has the cores that it wants, the run says that it waits for them.

Owns the file by which work says that it has begun. Knows no cluster.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.lifecycle.work import Work
from pipelines.ticking import ticking

LOOK_SECONDS = 1.0


def marker(folder: Path) -> Path:
    """In a run's folder the file that its work makes as soon as it runs."""
    return folder / "begun"


def amount(count: int, kind: str) -> str:
    """So many CPUs or GPUs."""
    return f"{count} {kind}{'' if count == 1 else 's'}"


@contextmanager
def handed(
    at: Work, needs: str, then: str, share: float, look: Callable[[], None] = lambda: None
) -> Iterator[None]:  # fmt: skip
    """While the block has the work done: tells that it waits for `needs`, and `then` once it runs, at `share`.

    From then on calls `look` now and then.
    """
    file, seen = marker(at.folder), False
    file.unlink(missing_ok=True)
    at.tell(share, f"waiting for {needs}")

    def tick() -> None:
        nonlocal seen
        if not seen and file.exists():
            seen = True
            at.tell(share, then)
        if seen:
            look()

    with ticking(tick, LOOK_SECONDS):
        yield
