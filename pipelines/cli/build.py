"""`strata build`: compile, ahead of use, what is compiled for the machine it runs on.

Knows the two things that are: DeepSpeed's shared-memory collectives and our kernels. Both keep what they compiled;
a stamp in the state folder spares a start the seconds of import that asking them would cost.
"""

import hashlib
import importlib.metadata
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cluster import folders, hardware
from cluster.errors import Unavailable, shorten
from cluster.settings import ClusterSettings
from pipelines.cli import show
from pipelines.settings import HOME
from pipelines.ticking import ticking

SOURCES = HOME / "actors" / "models" / "kernels"
TICK_SECONDS = 5.0  # how often a long compile says that it goes on


def run(file: Path | None, *, as_json: bool) -> None:
    """Compile both, with a line before, during and after each."""
    from pipelines.cli.config import settle  # noqa: PLC0415 - `up` calls `ensure` and has its settings

    cluster = settle(file).settings.cluster
    with folders.writing(cluster):
        (cluster.state / "built").unlink(missing_ok=True)
    seconds = ensure(cluster)
    if as_json:
        show.document({"seconds": {name: round(taken, 1) for name, taken in seconds.items()}})


def ensure(cluster: ClusterSettings) -> dict[str, float]:
    """Compile both unless that was done for this machine, these versions and these sources; the seconds of each."""
    folders.prepare(cluster)
    stamp, mark = cluster.state / "built", fingerprint()
    if stamp.exists() and stamp.read_text() == mark:
        return {}
    seconds = {
        "collectives": timed("collectives over shared memory (about a minute, once per machine)", _collectives),
        "kernels": timed("kernels for this processor (once per machine)", _kernels),
    }
    with folders.writing(cluster):
        stamp.write_text(mark)
    return seconds


def fingerprint() -> str:
    """What the compiled code depends on."""
    machine = hardware.look()
    versions = [importlib.metadata.version(name) for name in ("torch", "deepspeed")]
    digest = hashlib.sha256(repr((sys.version, machine.processor, machine.features, versions, str(HOME))).encode())
    for source in sorted(SOURCES.rglob("*")):
        if source.suffix in (".cpp", ".h", ".py"):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _collectives() -> None:
    from actors.models.parallel import build_collectives  # noqa: PLC0415 - torch

    build_collectives()


def _kernels() -> None:
    from actors.models import kernels  # noqa: PLC0415 - torch

    kernels.build(lambda text: show.progress(f"  {text}"))


def timed(what: str, work: Callable[[], None]) -> float:
    """Do `work`, saying so before, every few seconds and after; the seconds that it took."""
    started = time.monotonic()
    show.progress(f"building {what}")
    with ticking(lambda: show.progress(f"  {time.monotonic() - started:.0f} s"), TICK_SECONDS):
        try:
            work()
        except Exception as wrong:  # noqa: BLE001 - torch, ninja, compilers and loaders have no class in common
            raise Unavailable(f"what compiles {what.partition(' (')[0]}", reason(wrong)) from None
    seconds = time.monotonic() - started
    show.progress(f"  built in {seconds:.0f} s")
    return seconds


def reason(wrong: Exception) -> str:
    """What went wrong and what to do: torch puts all that a build printed into one exception."""
    program, fault = hardware.compiler()
    if fault:
        return f"the compiler {program} {fault}; install g++ (Debian, Ubuntu: apt install g++) or set CXX to another"
    last: BaseException = wrong
    while last.__cause__ is not None:
        last = last.__cause__
    output = getattr(last, "output", None) or wrong
    text = output.decode(errors="replace") if isinstance(output, bytes) else str(output)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(wrong).__name__]
    said = next((line for line in lines if "error" in line.lower()), lines[-1])
    return f"{shorten(said, 300)}; the compiler is {program}: set CXX to another, or run strata doctor"
