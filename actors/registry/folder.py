"""A model folder on its way into a version: which files go along, and what keeps a folder from being one.

Knows names and kinds of files. Knows no store and no history.
"""

import filecmp
import json
import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from actors.registry.pieces import SUFFIX
from cluster.errors import ModelInvalid

SMALL = 1 << 20  # bytes up to which a file stands in the tree itself, where git can show how it changed
FACTS = "strata.json"  # a version's metadata, in its tree
LEFT = {".git", ".cache", "__pycache__", ".ipynb_checkpoints"}  # what tools leave beside a model
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib", ".h5", ".zip", ".tar", ".gz"}
INDEX = ".safetensors.index.json"  # how the name of a list of what is in which file ends
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


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
    if not folder.is_dir():
        raise ModelInvalid(str(folder), "is no folder", "give the folder that save_pretrained wrote")
    by_name = {file.name: file for file in _walk(folder, folder)}
    for other in beside:
        for file in _walk(other, other):
            own = by_name.setdefault(file.name, file)
            if own is not file and not filecmp.cmp(own.path, file.path, shallow=False):
                raise ModelInvalid(str(file.path), f"is not the same as {own.path}", "keep the right one of the two")
    found = sorted(by_name.values(), key=lambda file: file.name)
    names = {file.name for file in found}
    if "config.json" not in names:
        raise ModelInvalid(str(folder), "has no config.json", "give the folder that save_pretrained wrote")
    _check_config(folder / "config.json")
    if not names & set(TOKENIZERS):
        remedy = "save the tokenizer into it with tokenizer.save_pretrained"
        raise ModelInvalid(str(folder), f"has no tokenizer ({' or '.join(TOKENIZERS)})", remedy)
    if not any(name.endswith(".safetensors") for name in names):
        remedy = "save the model with save_pretrained(safe_serialization=True)"
        raise ModelInvalid(str(folder), "holds no safetensors file", remedy)
    for file in found:
        if file.name.endswith(INDEX):
            _check_index(file, names)
    return found


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


def _walk(folder: Path, root: Path) -> Iterator[File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name in LEFT:
                continue
            name = checked(path.relative_to(root).as_posix(), str(root))
            if entry.is_symlink():
                raise ModelInvalid(str(path), "is a link", "put the file itself there")
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path, root)
            elif not entry.is_file(follow_symlinks=False):
                raise ModelInvalid(str(path), "is neither a file nor a folder", "take it away")
            elif path.suffix.lower() in PICKLES:
                remedy = "weights go as safetensors, all else as text; take it away"
                raise ModelInvalid(str(path), "may hold pickled objects, which can run code", remedy)
            else:
                yield File(name, path, entry.stat(follow_symlinks=False).st_size)


def _check_index(index: File, names: Collection[str]) -> None:
    """Every file that `index` names has to be there: a copy that was cut lacks some."""
    try:
        listed = json.loads(index.path.read_text("utf-8"))["weight_map"].values()
        wanted = {str(PurePosixPath(index.name).with_name(name)) for name in listed}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        remedy = "write it with save_pretrained"
        raise ModelInvalid(str(index.path), "is no JSON object with a weight_map of file names", remedy) from None
    if missing := sorted(wanted - set(names)):
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ModelInvalid(str(index.path), f"names {named}, not there", "copy all files of the model, then push again")


def _check_config(path: Path) -> None:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelInvalid(str(path), "is no JSON object with a model_type", "write it with save_pretrained")
    if config.get("auto_map"):
        remedy = "only architectures that transformers ships are run; take auto_map away"
        raise ModelInvalid(str(path), "asks for code of its own (auto_map)", remedy)
