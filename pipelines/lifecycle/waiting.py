"""Work that a step hands to the cluster: until it has the cores that it wants, the run says that it waits for them.

Owns the file by which work says that it has begun. Knows no cluster.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import StrataError
from pipelines.lifecycle.work import Work
from pipelines.ticking import ticking

LOOK_SECONDS = 1.0
PATIENCE, LOOKS = 5, 10  # at which looks of how many the gateway is asked who has a place without need


def marker(folder: Path) -> Path:
    """In a run's folder the file that its work makes as soon as it runs."""
    return folder / "begun"


def amount(count: int, kind: str) -> str:
    """So many CPUs or GPUs."""
    return f"{count} {kind}{'' if count == 1 else 's'}"


def held(at: Work) -> str:
    """What is free, and whose places will be before long, in words."""
    said = at.hands.free()
    free = f"; {said} are free" if said else ""
    try:
        routes = at.hands.ask("GET", "/v1/routes")["data"]
    except StrataError:
        return free
    kept = []
    for each in routes:
        if spare := each.get("spare"):
            names = f"{each['model']}@{' and '.join(spare['versions'])}"
            kept.append(f"{names} (no users) for {spare['seconds']:.0f} s more")
    if kept:
        return f"{free}; a release keeps {', '.join(kept)}, or until `strata deploy`"
    return free


@contextmanager
def handed(
    at: Work, needs: str, then: str, share: float, look: Callable[[], None] = lambda: None
) -> Iterator[None]:  # fmt: skip
    """While the block has the work done: tells that it waits for `needs`, and `then` once it runs, at `share`.

    From then on calls `look` now and then.
    """
    file, seen, looks = marker(at.folder), False, 0
    file.unlink(missing_ok=True)
    at.tell(share, f"waiting for {needs}")

    def tick() -> None:
        nonlocal seen, looks
        looks += 1
        if not seen and file.exists():
            seen = True
            at.tell(share, then)
        if seen:
            look()
        elif looks % LOOKS == PATIENCE:
            at.tell(share, f"waiting for {needs}{held(at)}")

    with ticking(tick, LOOK_SECONDS):
        yield
