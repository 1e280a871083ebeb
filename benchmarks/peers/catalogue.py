"""Every engine that is compared: how it is called, what weights it has at each precision, how they are made.

Knows folders and commands. Measures nothing.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import environments
from benchmarks.peers.checkpoint import CACHE

ROOT = Path(__file__).parent.parent.parent
PRECISIONS = ("none", "int8", "int4")
Prepare = Callable[[Path, str], Path]


class CannotPrepare(Exception):
    """A peer cannot be given these weights here, and why."""


@dataclass(frozen=True)
class Peer:
    """`weights`: a word for what it computes with, for each precision that it has. `module` runs as a process.

    `prepare(folder, precision)` gives the file or folder that it loads, made once.
    """

    title: str
    weights: Mapping[str, str]
    module: str
    prepare: Prepare
    environment: str | None = None  # of benchmarks/peers; None: this one
    preload: str | None = None  # a library below the environment that its process begins with
    rounds: bool = False  # it rounds the weights itself while it loads
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """How its process is started. Raises NotInstallable."""
        python = environments.install(self.environment) if self.environment else Path(sys.executable)
        return [str(python), "-m", self.module]

    def surroundings(self, threads: int) -> dict[str, str]:
        """Its environment variables."""
        found = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", **self.variables}
        if self.preload is not None and self.environment is not None:
            libraries = sorted((environments.ENVIRONMENTS / self.environment).glob(self.preload))
            if not libraries:
                raise CannotPrepare(f"no {self.preload} in its environment")
            found["LD_PRELOAD"] = str(libraries[0])
        return found


def _as_it_is(folder: Path, _: str) -> Path:
    return folder


def _gguf(folder: Path, precision: str) -> Path:
    tool = [environments.install("llama_cpp"), "-m", "benchmarks.peers.llama_cpp"]
    file = _cached(folder, "gguf")
    _once(file, lambda part: [*tool, "convert", folder, part])
    if precision == "none":
        return file
    kind = LLAMA_CPP.weights[precision]
    rounded = _cached(folder, f"{kind}.gguf")
    _once(rounded, lambda part: [*tool, "quantize", file, part, kind])
    return rounded


def _intermediate(folder: Path, precision: str) -> Path:
    """What Optimum's exporter makes of the folder, its defaults for each precision."""
    made = _cached(folder, f"openvino-{precision}")
    python = environments.install("openvino_export")
    _once(made, lambda part: [python, "-m", "benchmarks.peers.openvino_export", folder, part, precision])
    return made


def _compressed(folder: Path, precision: str) -> Path:
    """A compressed-tensors folder, written by our own quantizer, heads in bf16 as in vLLM's releases."""
    if precision == "none":
        return folder
    made = _cached(folder, f"compressed-{precision}")
    _once(made, lambda part: [sys.executable, "-m", "benchmarks.peers.vllm_weights", folder, part, precision])
    return made


def _cached(folder: Path, kind: str) -> Path:
    """Where what is made of a folder is kept: by name for the benchmark's own, else by place and date as well."""
    if folder.parent == CACHE:
        return CACHE / f"{folder.name}.{kind}"
    of = f"{folder.resolve()} {(folder / 'config.json').stat().st_mtime_ns}"
    return CACHE / f"{folder.name}-{hashlib.sha256(of.encode()).hexdigest()[:12]}.{kind}"


def _once(made: Path, command: Callable[[Path], list]) -> None:
    if made.exists():
        return
    made.parent.mkdir(parents=True, exist_ok=True)
    part = made.with_name(f"{made.name}.part")
    if part.is_dir():  # of a run that was ended
        shutil.rmtree(part)
    done = subprocess.run(list(map(str, command(part))), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotPrepare(f"making {made.name} failed: {last(done.stderr)}")
    part.replace(made)


def last(said: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


STRATA = Peer(
    "Strata", {"none": "bf16", "int8": "int8", "int4": "int4"}, "benchmarks.peers.strata", _as_it_is, rounds=True
)
HUGGING_FACE = Peer("Hugging Face generate", {"none": "bf16"}, "benchmarks.peers.hugging_face", _as_it_is)
LLAMA_CPP = Peer(
    "llama.cpp", {"none": "bf16", "int8": "Q8_0", "int4": "Q4_0"}, "benchmarks.peers.llama_cpp", _gguf,
    environment="llama_cpp",
)  # fmt: skip
OPENVINO = Peer(
    "OpenVINO GenAI", {"none": "bf16", "int8": "int8 weights", "int4": "int4 weights"}, "benchmarks.peers.openvino",
    _intermediate, environment="openvino",
)  # fmt: skip
VLLM = Peer(
    "vLLM CPU", {"none": "bf16", "int8": "W8A8", "int4": "W4A16"}, "benchmarks.peers.vllm", _compressed,
    environment="vllm", preload="lib/libiomp5.so",
)  # fmt: skip
PEERS = {"llama_cpp": LLAMA_CPP, "openvino": OPENVINO, "vllm": VLLM, "hugging_face": HUGGING_FACE}
