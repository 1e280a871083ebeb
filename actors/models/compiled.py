"""DeepSpeed's shared-memory op in compiled form: where this installation keeps it, and how it is loaded.

DeepSpeed asks the compiler at every start which of its operators could be built, and ninja whether this one is up to
date: half a second of every rank. And torch's own folder for what it compiles is one for all installations of a user,
which overwrite each other's for a minute each. So each installation has a folder of its own, named by all that the
compiled file depends on, and what is there needs nobody's leave.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.models.extension import turn
from actors.models.kernels.building import processor_features

OPERATOR = "deepspeed_shm_comm"  # ShareMemCommBuilder.NAME, which torch keeps its folder under
CACHE = Path.home() / ".cache" / "strata" / "extensions"


def shm_operator(build: Callable[[], Any]) -> Any:
    """The op's module, None where DeepSpeed has none; `build`, which is DeepSpeed's own, compiles it the first time."""
    home = place()
    folder = home / OPERATOR
    if not (folder / "whole").exists():
        before = os.environ.get("TORCH_EXTENSIONS_DIR")
        os.environ["TORCH_EXTENSIONS_DIR"] = str(home)
        try:
            with turn(folder):
                module = build()
                if (folder / f"{OPERATOR}.so").exists():
                    (folder / "whole").touch()  # not before: a linker that is killed leaves half a file
                return module
        finally:
            os.environ.pop("TORCH_EXTENSIONS_DIR")
            if before is not None:
                os.environ["TORCH_EXTENSIONS_DIR"] = before
    return _load(folder / f"{OPERATOR}.so")


def place() -> Path:
    """This installation's folder, below the one that the user gave torch if there is one."""
    versions = [importlib.metadata.version(name) for name in ("torch", "deepspeed")]
    named = repr((sys.prefix, sys.version, versions, sorted(processor_features())))
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or CACHE
    return Path(root) / hashlib.sha256(named.encode()).hexdigest()[:16]


def _load(file: Path) -> Any:
    """As torch does once it has compiled (torch/utils/cpp_extension.py, _import_module_from_library)."""
    spec = importlib.util.spec_from_file_location(OPERATOR, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
