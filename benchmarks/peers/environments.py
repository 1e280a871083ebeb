"""The peers' virtual environments: .venv-peers/NAME, made from the pinned list NAME.txt beside this file.

The lists name every package, so that nothing is resolved: a peer that would pull a CUDA build of torch, or bring a
torchvision that does not fit, does neither. Plain Python, as the command line reads it, too.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

LISTS = Path(__file__).parent
ENVIRONMENTS = LISTS.parent.parent / ".venv-peers"


class NotInstallable(Exception):
    """A peer's environment cannot be made here, and why."""


def python(name: str) -> Path | None:
    """The interpreter of an environment that was made from the list as it is now."""
    found, stamp = ENVIRONMENTS / name / "bin" / "python", ENVIRONMENTS / name / ".installed"
    made = found.exists() and stamp.is_file() and stamp.read_text("utf-8") == _list(name).read_text("utf-8")
    return found if made else None


def install(name: str) -> Path:
    """Make the environment if need be. Raises NotInstallable with what pip said last."""
    made = python(name)
    if made is not None:
        return made
    folder = ENVIRONMENTS / name
    print(f"making {folder.relative_to(ENVIRONMENTS.parent)}: some minutes", file=sys.stderr, flush=True)
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    # no cache: what was built there may be of another compiler
    command = [folder / "bin" / "pip", "install", "-q", "--no-input", "--no-deps", "--no-cache-dir", "-r", _list(name)]
    done = subprocess.run(command, env=_compilers(), capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr[-300:]]
        raise NotInstallable(f"pip failed: {said[0].strip()}")
    (folder / ".installed").write_text(_list(name).read_text("utf-8"), encoding="utf-8")
    return folder / "bin" / "python"


def _compilers() -> dict[str, str]:
    """What a peer is built with, for this machine: Clang where there is one, as GCC 12 makes AMX code that crashes."""
    found = shutil.which("clang") and shutil.which("clang++")
    return {**os.environ, **({"CC": "clang", "CXX": "clang++"} if found else {})}


def _list(name: str) -> Path:
    return LISTS / f"{name}.txt"
