"""Which file of transformers defines what: found out once for an installed release, and kept.

`import transformers` reads all of its sources, some 3,000 files, twice: 0.3 s of every rank's start, and more where
they are not in memory yet. What it finds depends on the release alone. Here a memory comes before that one function of
transformers', as it is imported. Knows nothing of models.
"""

import hashlib
import importlib.metadata
import marshal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Any

MODULE = "transformers.utils.import_utils"
FUNCTION = "create_import_structure_from_path"
CACHE = Path.home() / ".cache" / "strata" / "catalogues"

Read = Callable[[Any], Any]


class Loader(SourceFileLoader):
    """Loads the module and puts the memory before its function."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        read = getattr(module, FUNCTION, None)
        if read is not None:
            setattr(module, FUNCTION, remembered(read))


class Finder(MetaPathFinder):
    """Finds that one module, as Python would, and has it loaded by `Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = Loader(fullname, spec.loader.path)
        return spec


def install() -> None:
    """Remember from the next import of transformers on."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())


def remembered(read: Read) -> Read:
    """`read` for all models, from the cache where it has been asked before; its parts are read as ever."""

    def catalogue(where: Any) -> Any:
        folder = Path(where) if Path(where).is_dir() else Path(where).parent
        if folder.name != "models" or folder.parent.name != "transformers":
            return read(where)
        file = place(folder)
        with suppress(OSError, ValueError, EOFError, TypeError):
            return marshal.loads(file.read_bytes())  # noqa: S302 - as the bytecode beside it, which is trusted as much
        found = read(where)
        with suppress(OSError, ValueError):
            _keep(file, marshal.dumps(found))
        return found

    return catalogue


def place(folder: Path) -> Path:
    """The file for this release, this folder and this Python, whose own format it has."""
    release = importlib.metadata.version("transformers")
    named = repr((sys.version, release, str(folder), folder.stat().st_mtime_ns))
    return CACHE / hashlib.sha256(named.encode()).hexdigest()[:16]


def _keep(file: Path, content: bytes) -> None:
    """Whole or not at all: ranks start together."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
        scratch.write(content)
    Path(scratch.name).replace(file)
