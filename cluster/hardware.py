"""What one machine has: processor, memory, accelerators, limits. Reads /proc and asks nvidia-smi; needs no Ray.

Knows facts. What to think of them stands in `pipelines.cli.doctor`.
"""

import os
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FEATURES = (
    "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8",
    "asimd", "bf16",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as it is now. Sizes in bytes."""

    python: tuple[int, int, int]
    compiler: str
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
        shutil.which("g++") or shutil.which("c++") or "",
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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
