"""What one machine has: processor, memory, accelerators, limits. Reads /proc and asks nvidia-smi; needs no Ray.

Knows facts. What to think of them stands in `pipelines.cli.doctor`.
"""

import errno
import os
import resource
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FEATURES = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni", "amx_bf16",
    "amx_int8", "asimd", "bf16",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as it is now. Sizes in bytes."""

    python: tuple[int, int, int]
    compiler: str
    compiler_fault: str
    processor: str
    cores: int
    features: tuple[str, ...]
    memory: int
    memory_free: int
    shared_memory: int
    open_files: int
    gpus: tuple[str, ...]


def look() -> Machine:
    """This machine."""
    processor, features = processor_of(_text(Path("/proc/cpuinfo")))
    memory, free = memory_of(_text(Path("/proc/meminfo")))
    return Machine(
        sys.version_info[:3],
        *compiler(),
        processor,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        features,
        memory,
        free,
        free_bytes(Path("/dev/shm")),  # noqa: S108 - asked for its size
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        gpus(),
    )


def processor_of(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """The processor's name and what it can do that matters here, from /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return fields.get("model name", "unknown"), tuple(feature for feature in FEATURES if feature in flags)


def memory_of(meminfo: str) -> tuple[int, int]:
    """Bytes of memory and of available memory, from /proc/meminfo."""
    sizes = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if rest.strip().endswith("kB"):
            sizes[name] = int(rest.split()[0]) * 1024
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def free_bytes(path: Path) -> int:
    """What may still be written where `path` is or will be; 0 if there is no such place."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def compiler() -> tuple[str, str]:
    """The C++ compiler that is used, CXX or the machine's own, and what is wrong with it: nothing if it compiles."""
    program = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or ""
    if not program:
        return "", "is missing"
    command = [*shlex.split(program), "-x", "c++", "-std=c++17", "-fsyntax-only", "-"]
    source = "#include <vector>\nint main() { return std::vector<int>{0}[0]; }\n"
    try:
        done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - what CXX names is run by every build
    except (OSError, subprocess.TimeoutExpired) as wrong:
        return program, f"does not run ({wrong})"
    said = next((line for line in done.stderr.splitlines() if "error" in line), "no word of why")
    return program, f"does not compile C++17 ({said.strip()})" if done.returncode else ""


def gpus() -> tuple[str, ...]:
    """Name and memory of each NVIDIA GPU; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - no text of others
    except (subprocess.SubprocessError, OSError):
        return ()
    return tuple(line.strip() for line in said.stdout.splitlines() if line.strip())


def port_is_free(host: str, port: int) -> bool:
    """Whether we could listen there."""
    return not port_problem(host, port)


def port_problem(host: str, port: int) -> str:
    """Why we cannot listen there, and what to do about it; nothing if we can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()  # two may be bound where one says so, but not listen
        except PermissionError:
            return "ports below 1024 are for root; set a higher cluster.http_port"
        except OSError as wrong:
            if wrong.errno != errno.EADDRINUSE:
                return f"this machine cannot listen on {host} ({wrong.strerror}); set another cluster.host"
            return f"{_listener(port)} listens there; end it, or choose another port, as with --http-port {port + 1}"
    return ""


def _listener(port: int) -> str:
    """Who listens on a port, as far as we may know."""
    import psutil  # noqa: PLC0415 - only where something is in the way

    with suppress(psutil.Error, OSError):
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port and found.pid:
                return f"{psutil.Process(found.pid).name()} (process {found.pid})"
    return "another program"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
