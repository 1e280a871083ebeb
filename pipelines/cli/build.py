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

from cluster import hardware, runtime
from cluster.settings import ClusterSettings
from pipelines.cli import show
from pipelines.settings import HOME

SOURCES = HOME / "actors" / "models" / "kernels"


def run(file: Path | None) -> None:
    """Compile both, with a line before and after each."""
    from pipelines.cli.config import settle  # noqa: PLC0415 - `up` calls `ensure` and has its settings

    cluster = settle(file).settings.cluster
    (cluster.state / "built").unlink(missing_ok=True)
    ensure(cluster)


def ensure(cluster: ClusterSettings) -> None:
    """Compile both unless that was done for this machine, these versions and these sources."""
    runtime.prepare(cluster)
    stamp, mark = cluster.state / "built", fingerprint()
    if stamp.exists() and stamp.read_text() == mark:
        return
    timed("collectives over shared memory (about a minute, once per machine)", _collectives)
    timed("kernels for this processor (once per machine)", _kernels)
    stamp.write_text(mark)


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


def timed(what: str, work: Callable[[], None]) -> None:
    """Do `work`, saying so before and after."""
    started = time.monotonic()
    show.progress(f"building {what}")
    work()
    show.progress(f"  built in {time.monotonic() - started:.0f} s")
