"""Compile the kernels once per machine and keep the library in the user's cache.

The sources need neither torch's nor Python's headers, so that a build takes seconds and a new torch asks for no
new build: the cache key is the sources, the flags that this processor allows, and the compiler.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
CACHE = Path.home() / ".cache" / "strata" / "kernels"
# The instruction sets that sixteen lanes are made of (src/lanes_*.h): the first that the processor has.
AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
AVX2 = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"})
LANES = {AVX512: ("-march=x86-64-v4", "-mprefer-vector-width=512"), AVX2: ("-march=x86-64-v3",)}
OPTIONAL = {  # beside AVX-512
    "avx512_bf16": "-mavx512bf16", "avx512_vnni": "-mavx512vnni", "amx_tile": "-mamx-tile", "amx_bf16": "-mamx-bf16",
    "amx_int8": "-mamx-int8",
}  # fmt: skip
COMPILE_SECONDS = 300  # one file takes 2 to 5; a machine with one slow, busy core gets patience
# Without contraction a product and a sum become one rounding only where the source says so: the compiler would decide
# it anew for each number of rows, and a row has to come out the same beside any others.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fopenmp", "-fno-math-errno", "-ffp-contract=off")

Progress = Callable[[str], None]


class BuildFailed(Exception):
    """This machine cannot run or cannot compile the kernels; the text says why."""


def library(progress: Progress | None = None, lanes: frozenset[str] | None = None) -> Path:
    """The compiled library, made if it is not there yet. Raises BuildFailed.

    `lanes`: a key of LANES instead of the best that this processor has.
    """
    flags = (*FLAGS, *_processor_flags(lanes))
    compiler = _compiler()
    made = CACHE / _key(flags, compiler) / "kernels.so"
    if made.is_file():
        return made
    try:
        made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(made.parent / "lock"):
            if not made.is_file():
                _compile(compiler, flags, made, progress or (lambda _: None))
    except OSError as error:
        raise BuildFailed(f"the cache {made.parent} cannot be written: {error}") from error
    return made


def processor_features() -> set[str]:
    """The instruction sets that the first processor of this machine names; empty where Linux does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def best_lanes() -> frozenset[str] | None:
    """The first of LANES that this processor has."""
    features = processor_features()
    return next((lanes for lanes in LANES if lanes <= features), None)


def _processor_flags(lanes: frozenset[str] | None) -> tuple[str, ...]:
    features = processor_features()
    lanes = lanes or best_lanes()
    if lanes is None:
        raise BuildFailed(f"the processor lacks {', '.join(sorted(AVX2 - features))}")
    more = (flag for name, flag in OPTIONAL.items() if name in features) if lanes is AVX512 else ()
    return (*LANES[lanes], *more)


def _compiler() -> list[str]:
    """The command: CXX, or what the machine has."""
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        return named
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        raise BuildFailed("there is no C++ compiler (g++ or clang++, or what CXX names)")
    return [found]


def _key(flags: tuple[str, ...], compiler: list[str]) -> str:
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=60, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{compiler[0]} does not run: {error}") from error
    parts = [version, " ".join(flags).encode()]
    parts += [path.name.encode() + b"\0" + path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]*"))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The shards of a gang start together: one compiles, the others wait."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(compiler: list[str], flags: tuple[str, ...], made: Path, progress: Progress) -> None:
    files = sorted(SOURCES.glob("*.cpp"))
    with tempfile.TemporaryDirectory(dir=made.parent) as folder, ThreadPoolExecutor(2) as pool:
        objects = [Path(folder) / f"{file.stem}.o" for file in files]
        commands = [[*compiler, *flags, "-c", str(f), "-o", str(o)] for f, o in zip(files, objects, strict=True)]
        for done, file in enumerate(files, 1):
            if done == 1:
                running = [pool.submit(_run, command) for command in commands]
            running[done - 1].result()
            progress(f"compiled {file.name} ({done} of {len(files)})")
        linked = Path(folder) / "kernels.so"
        _run([*compiler, "-shared", "-fopenmp", *map(str, objects), "-o", str(linked)])
        linked.replace(made)  # whoever looks sees all of it or nothing


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BuildFailed(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")
