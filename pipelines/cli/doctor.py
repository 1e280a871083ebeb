"""`strata doctor`: what is wrong with this machine, and what to do about it.

Each check is a plain function of facts; the list at the end is the order in which they are shown.
"""

import importlib.metadata
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.markup import escape

from cluster import hardware, runtime
from cluster.hardware import Machine
from cluster.settings import ClusterSettings
from pipelines.cli import named, show
from pipelines.cli.config import settle
from pipelines.settings import Settings

GIB = 2**30
RAY = "2.60.0"  # the version whose private names `cluster.loopback` relies on
KERNELS = ("avx2", "fma", "f16c")  # what actors/models/kernels needs at least
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: ok, warn or fail; what was seen; what to do about it."""

    check: str
    verdict: str
    seen: str
    remedy: str = ""


def run(file: Path | None, *, as_json: bool) -> None:
    """Check everything; exit status 1 if something fails."""
    settings = settle(file).settings
    findings = [*examine(hardware.look(), settings.cluster), *models(settings)]
    if as_json:
        show.document([asdict(finding) for finding in findings])
    else:
        for found in findings:
            colour = COLOURS[found.verdict]
            show.line(f"[{colour}]{found.verdict:4}[/] {found.check:14} {escape(found.seen)}")
            if found.remedy:
                show.line(f"                    [dim]{escape(found.remedy)}[/]")
    if any(finding.verdict == "fail" for finding in findings):
        raise SystemExit(1)


def examine(machine: Machine, cluster: ClusterSettings) -> list[Finding]:
    """All findings, in the order of CHECKS."""
    return [check(machine, cluster) for check in CHECKS]


def models(settings: Settings) -> list[Finding]:
    """What they name is there: folders and versions of models, files of questions and texts."""
    nodes = settings.cluster.address != "local"  # which may have what this machine has not
    found = [Finding("models", "warn" if nodes else "fail", seen, remedy) for seen, remedy in named.missing(settings)]
    return found or [Finding("models", "ok", ", ".join(model.name for model in settings.models))]


def python(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """3.11 or newer."""
    seen = ".".join(map(str, machine.python))
    if machine.python >= (3, 11, 0):
        return Finding("python", "ok", seen)
    return Finding("python", "fail", seen, "install Python 3.11 or newer and run make PYTHON=/path/to/it")


def compiler(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """One that builds C++: it is tried."""
    if machine.compiler and not machine.compiler_fault:
        return Finding("compiler", "ok", machine.compiler)
    seen = f"{machine.compiler} {machine.compiler_fault}" if machine.compiler else "no g++ or c++"
    return Finding(
        "compiler", "fail", seen, "install g++ (Debian, Ubuntu: apt install g++) or set CXX to one that works"
    )


def ninja(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """What torch builds with and asks for even to load what is built; it comes with Strata's other packages."""
    if found := shutil.which("ninja", path=runtime.search_path()):
        return Finding("ninja", "ok", found)
    remedy = "run make install: without it sums over shards take the slower of two ways where our kernels do not run"
    return Finding("ninja", "warn", "not installed", remedy)


def ray_version(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """The one that is pinned."""
    try:
        seen = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return Finding("ray", "fail", "not installed", "run make install")
    if seen == RAY:
        return Finding("ray", "ok", seen)
    return Finding("ray", "fail", seen, f"Strata is made for Ray {RAY}: run make install")


def state(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """A folder that can be made and written, or nothing can be remembered."""
    nearest = next(path for path in (cluster.state, *cluster.state.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=nearest) as probe, (Path(probe) / "probe").open("wb") as file:
            file.write(b"x" * 4096)
    except OSError as wrong:
        seen = f"{cluster.state}: nothing can be written in {nearest} ({wrong.strerror})"
        return Finding("state folder", "fail", seen, "set cluster.state_dir to a folder of yours on a disk with room")
    return Finding("state folder", "ok", str(cluster.state))


def token(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """Only its owner may read Ray's token: whoever has it may run code."""
    path = cluster.state / "ray.token"
    if cluster.address != "local":
        return Finding("ray token", "ok", f"that of the cluster at {cluster.address}")
    if not path.exists():
        return Finding("ray token", "ok", "authentication by token, which the first up makes")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Finding("ray token", "fail", f"{path} can be read by others", f"strata down, rm {path}, strata up")
    return Finding("ray token", "ok", f"authentication by token, in {path}")


def processor(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """Cores for the starter's two shards, and what our kernels need."""
    seen = f"{machine.processor}, {machine.cores} cores, {' '.join(machine.features) or 'no vector extensions known'}"
    if machine.cores < 2:
        remedy = "the starter's two shards take turns on one core: for speed set tensor_parallel_size: 1 for the models"
        return Finding("processor", "warn", seen, remedy)
    if missing := [feature for feature in KERNELS if feature not in machine.features]:
        remedy = f"our kernels need {' '.join(missing)}: plain torch runs in their place, which is many times slower"
        return Finding("processor", "warn", seen, remedy)
    return Finding("processor", "ok", seen)


def gpu(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """None is fine."""
    return Finding("gpu", "ok", "; ".join(machine.gpus) or "none: models run on the processor")


def memory(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """Ray and Serve take about 2 GiB before any model does."""
    seen = f"{machine.memory_free / GIB:.1f} of {machine.memory / GIB:.1f} GiB free"
    if machine.memory_free >= 4 * GIB:
        return Finding("memory", "ok", seen)
    verdict = "fail" if machine.memory_free < 2 * GIB else "warn"
    return Finding("memory", verdict, seen, "Strata with the starter model takes about 3 GiB: end something else")


def shared_memory(machine: Machine, cluster: ClusterSettings) -> Finding:
    """Ray's object store and the gangs' channels lie in /dev/shm."""
    need = cluster.object_store_megabytes * 2**20 + 64 * 2**20
    seen = f"{machine.shared_memory / GIB:.1f} GiB free in /dev/shm"
    if machine.shared_memory >= need:
        return Finding("shared memory", "ok", seen)
    remedy = f"give it {need // 2**20} MiB (Docker: --shm-size=1g), or lower cluster.object_store_megabytes"
    return Finding("shared memory", "fail", seen, remedy)


def disk(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """For the state, for logs and for what is compiled."""
    low = min((hardware.free_bytes(path), str(path)) for path in (cluster.state, cluster.run_dir, Path.home()))
    seen = f"{low[0] / GIB:.1f} GiB free at {low[1]}"
    if low[0] >= 2 * GIB:
        return Finding("disk", "ok", seen)
    return Finding("disk", "fail" if low[0] < GIB // 4 else "warn", seen, "make room, or set cluster.state_dir")


def files(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """Each stream is a few of them."""
    seen = f"{machine.open_files} open files"
    if machine.open_files >= 8192:
        return Finding("open files", "ok", seen)
    verdict = "fail" if machine.open_files < 1024 else "warn"
    return Finding("open files", verdict, seen, "run ulimit -n 65536 before strata up: each stream takes a few")


def port(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """Free, or ours."""
    seen = f"{cluster.host}:{cluster.http_port}"
    if runtime.find(cluster):
        return Finding("port", "ok", f"{seen}, Strata is running")
    if hardware.port_is_free(cluster.host, cluster.http_port):
        return Finding("port", "ok", f"{seen} is free")
    return Finding("port", "fail", f"{seen} cannot be had", hardware.port_problem(cluster.host, cluster.http_port))


def dashboard_port(machine: Machine, cluster: ClusterSettings) -> Finding:  # noqa: ARG001
    """Free, or Ray takes the next one."""
    seen = f"127.0.0.1:{cluster.dashboard_port}"
    running = runtime.find(cluster)
    if cluster.address != "local" or not cluster.dashboard:
        return Finding("dashboard port", "ok", "no dashboard is started")
    if running:
        return Finding("dashboard port", "ok", f"{running.dashboard or seen}, Strata is running")
    if hardware.port_is_free("127.0.0.1", cluster.dashboard_port):
        return Finding("dashboard port", "ok", f"{seen} is free")
    remedy = "the next free one is taken, which strata status shows; set cluster.dashboard_port to choose"
    return Finding("dashboard port", "warn", f"{seen} is taken", remedy)


CHECKS: tuple[Callable[[Machine, ClusterSettings], Finding], ...] = (
    python, compiler, ninja, ray_version, state, token, processor, gpu, memory, shared_memory, disk, files, port,
    dashboard_port,
)  # fmt: skip
