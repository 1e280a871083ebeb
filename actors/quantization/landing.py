"""A folder that stands at its place only when it is whole: made beside it, and swapped for what was there.

Knows which folders are earlier outputs of ours, for nothing else is ever replaced. Knows nothing of what is made.
"""

import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

import psutil

from cluster.errors import InvalidRequest

MAKER = {"format": "pt", "made_by": "strata quantize"}  # in the header of our files; readers look at `format` alone
REPORT = "quantization.json"
TEMPLATES = "additional_chat_templates"  # a folder of a tokenizer
OURS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.svg", "LICENSE*", "NOTICE*")
LONGEST_HEADER = 100 * 2**20  # as in the safetensors library
HERE, EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: linux/fcntl.h, linux/fs.h


@contextmanager
def landing(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` in one step when the block ends, and is gone if it fails.

    Raises InvalidRequest where `target` cannot be a folder of ours: before the block runs.
    """
    shown, target = str(target), target.resolve()
    part = target.with_name(f".{target.name}.part-{os.getpid()}")
    try:
        _sweep(target)
        refuse_foreign(target)
        part.mkdir(parents=True)
    except OSError as error:
        remedy = f"name a folder that can be made and written ({error.strerror})"
        raise InvalidRequest("--out", shown, remedy) from error
    try:
        yield part
        _swap(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def refuse_foreign(target: Path) -> None:
    """Raises InvalidRequest unless `target` is free, empty or an earlier output of ours and of nobody else."""
    if not target.exists():
        return
    if not target.is_dir():
        raise InvalidRequest("--out", str(target), "it is a file; name a folder")
    held = sorted(target.iterdir())
    folders = [one.name for one in held if one.is_dir() and one.name != TEMPLATES]
    files = [one.name for one in held if not one.is_dir()]
    foreign = folders + [name for name in files if not any(fnmatch(name, pattern) for pattern in OURS)]
    if held and (foreign or not _made_here(target)):
        what = f" ({foreign[0]} in it is not ours)" if foreign else ""
        remedy = f"it holds what `strata quantize` did not write{what}; name a new folder, or remove this one yourself"
        raise InvalidRequest("--out", str(target), remedy)


def _made_here(folder: Path) -> bool:
    if any(_header(file).get("made_by") == MAKER["made_by"] for file in folder.glob("*.safetensors")):
        return True
    try:
        report = json.loads((folder / REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and {"float32_bytes", "sensitivities", "leave_alone"} <= set(report)


def _header(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file; nothing of one that cannot be read."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(size)) if size <= LONGEST_HEADER else {}
            found = header.get("__metadata__") if isinstance(header, dict) else None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _swap(part: Path, target: Path) -> None:
    """At every moment one of the two stands at `target`, where the file system can exchange names."""
    if not target.exists():
        part.rename(target)
        return
    refuse_foreign(target)  # it took a while: somebody may have put something there
    if _exchanged(part, target):
        return  # `part` is the old folder now
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:  # a C library older than the call
        return False
    return bool(renameat2(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0)


def _sweep(target: Path) -> None:
    """Remove what processes left behind that died; a folder that one had just put aside goes back to its place."""
    for kind in ("old", "part"):
        for left in target.parent.glob(f".{escape(target.name)}.{kind}-*"):
            pid = left.name.rpartition("-")[2]
            if not pid.isdigit() or (int(pid) != os.getpid() and psutil.pid_exists(int(pid))):
                continue
            if kind == "old" and not target.exists():
                left.rename(target)
            else:
                shutil.rmtree(left, ignore_errors=True)
