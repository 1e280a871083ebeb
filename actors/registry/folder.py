"""A model folder on its way into a version: which files go along, and what keeps a folder from being one.

Knows names and kinds of files; what has to stand in them is `vetting`'s. Knows no store and no history.
"""

import filecmp
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from actors.registry.pieces import SUFFIX
from actors.registry.vetting import CONFIG, TOKENIZER, vet
from cluster.errors import ModelInvalid

SMALL = 1 << 20  # bytes up to which a file stands in the tree itself, where git can show how it changed
FACTS = "strata.json"  # a version's metadata, in its tree
LEFT = {".git", ".cache", "__pycache__", ".ipynb_checkpoints"}  # what tools leave beside a model
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib", ".h5", ".zip", ".tar", ".gz"}
TOKENIZERS = (TOKENIZER, "tokenizer.model")
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{kind}{number}" for kind in ("COM", "LPT") for number in range(10))}


@dataclass(frozen=True, slots=True)
class File:
    """One file of a folder. `name` is its path in it, with slashes."""

    name: str
    path: Path
    size: int

    @property
    def whole(self) -> bool:
        """Whether it stands in the tree as it is."""
        return self.size <= SMALL and self.path.suffix != ".safetensors"


def files(folder: Path, beside: Sequence[Path] = ()) -> list[File]:
    """All that belongs to the model in `folder`, by name. Raises ModelInvalid for what is no model, or not safe.

    `beside`: folders with what it lacks; what both have has to be the same.
    """
    _require(folder)
    by_name = {file.name: file for file in _walk(folder, folder, [])}
    for other in beside:
        for file in _walk(other, other, []):
            own = by_name.setdefault(file.name, file)
            if own is not file and not filecmp.cmp(own.path, file.path, shallow=False):
                raise ModelInvalid(str(file.path), f"is not the same as {own.path}", "keep the right one of the two")
    found = sorted(by_name.values(), key=lambda file: file.name)
    names = {file.name for file in found}
    if CONFIG not in names:
        raise ModelInvalid(str(folder), f"has no {CONFIG}", "give the folder that save_pretrained wrote")
    if not names & set(TOKENIZERS):
        remedy = "save the tokenizer into it with tokenizer.save_pretrained"
        raise ModelInvalid(str(folder), f"has no tokenizer ({' or '.join(TOKENIZERS)})", remedy)
    if not any(name.endswith(".safetensors") for name in names):
        remedy = "save the model with save_pretrained(safe_serialization=True)"
        raise ModelInvalid(str(folder), "holds no safetensors file", remedy)
    if alike := twins(file.name for file in found):
        problem = f"has {alike[0]} and {alike[1]}, which look the same or are one file where capitals do not count"
        raise ModelInvalid(str(folder), problem, "rename one of them")
    vet({file.name: file.path for file in found})
    return found


def survey(folder: Path, beside: Sequence[Path] = ()) -> tuple[int, list[str]]:
    """How many bytes `files` would find, unread, and what in the folders is left out. Raises ModelInvalid."""
    _require(folder)
    left: list[str] = []
    sizes = {file.name: file.size for each in (folder, *beside) for file in _walk(each, each, left)}
    return sum(sizes.values()), sorted(left)


def twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two paths, of files or folders, that look the same or are one on a disk that takes A for a."""
    seen: dict[str, str] = {}
    for name in names:
        for path in (PurePosixPath(name), *PurePosixPath(name).parents):
            first = seen.setdefault(unicodedata.normalize("NFKC", str(path)).casefold(), str(path))
            if first != str(path):
                return first, str(path)
    return None


def checked(name: str, where: str) -> str:
    """`name` if it may be a path in a version: no way out of it, one spelling. Raises ModelInvalid, naming `where`."""
    parts = PurePosixPath(name).parts
    problem = None
    if not name or name.startswith("/") or "\\" in name or any(part in ("..", ".", "") for part in name.split("/")):
        problem = "leads out of the folder"
    elif unicodedata.normalize("NFC", name) != name:
        problem = "is not in Unicode's form NFC, so that another name may look the same"
    elif any(unicodedata.category(letter)[0] == "C" for letter in name):
        problem = "has characters that nobody sees"
    elif parts[0].lower() == ".git" or name == FACTS or name.endswith(SUFFIX):
        problem = "is a name of the registry's own"
    if problem:
        raise ModelInvalid(where, f"the file name {name!r} {problem}", "rename it")
    return name


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelInvalid(str(folder), "is no folder", "give the folder that save_pretrained wrote")


def _check_elsewhere(name: str, where: str) -> None:
    """Raises ModelInvalid for a name that Windows has for a device or cuts; what is there already is read anyway."""
    part = PurePosixPath(name).name
    problem = None
    if part.partition(".")[0].rstrip().upper() in DEVICES:
        problem = "is a device of Windows"
    elif part.endswith((" ", ".")):
        problem = "ends with a blank or a dot, so that another name looks the same"
    if problem:
        raise ModelInvalid(where, f"the file name {name!r} {problem}", "rename it")


def _walk(folder: Path, root: Path, left: list[str]) -> Iterator[File]:
    """All files; what is left out of them comes to stand in `left`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name in LEFT:
                left.append(path.relative_to(root).as_posix())
                continue
            if entry.name == FACTS and folder == root:  # metadata, which `exchange` reads
                continue
            name = checked(path.relative_to(root).as_posix(), str(root))
            _check_elsewhere(name, str(root))
            if entry.is_symlink():
                raise ModelInvalid(str(path), "is a link", "put the file itself there")
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path, root, left)
            elif not entry.is_file(follow_symlinks=False):
                raise ModelInvalid(str(path), "is neither a file nor a folder", "take it away")
            elif path.suffix.lower() in PICKLES:
                remedy = "weights go as safetensors, all else as text; take it away"
                raise ModelInvalid(str(path), "may hold pickled objects, which can run code", remedy)
            else:
                yield File(name, path, entry.stat(follow_symlinks=False).st_size)
