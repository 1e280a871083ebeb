"""Read a settings file: YAML in, plain values and the line of each out.

Refuses what YAML lets pass and a person never means: keys twice, tabs, aliases that grow without end, dates and
sexagesimal numbers, a file that is no text. Reads the floats that PyYAML, of YAML 1.1, takes for texts, such as 1e-6.
Knows nothing of which keys exist.
"""

import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import SettingsInvalid

FILE_BYTES = 1024 * 1024  # a settings file of a thousand models has a tenth of it
DEPTH = 32

Keys = tuple[str | int, ...]
SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")  # YAML 1.1 reads 12:30 as 750

FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+\Z")  # YAML 1.2.2, 10.3.2, with an exponent


class Loader(yaml.SafeLoader):
    """PyYAML's, with YAML 1.2's floats."""


class Dumper(yaml.SafeDumper):
    """What it writes, `Loader` reads as it was: a text such as 1e-6 in quotes."""


for _kind in (Loader, Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a settings file. `lines` says where each key and each list element stands, from 1."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Keys, int] = field(default_factory=dict)


def read(path: Path, otherwise: str = "write settings into it, or start without it") -> Document:
    """The document in the file at `path`. Raises SettingsInvalid, with the line where there is one.

    `otherwise`: what to do where the file is empty.
    """
    text = _text(path)
    if not text.strip():
        raise SettingsInvalid(str(path), "an empty file", otherwise)
    return parse(text, path.name)


def parse(text: str, name: str) -> Document:
    """The document that `text` holds; `name` stands in errors."""
    try:
        root = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as wrong:
        raise _syntax(name, wrong) from None
    except yaml.YAMLError as wrong:
        raise SettingsInvalid(name, str(wrong).splitlines()[0], "save it as UTF-8 text") from None
    except RecursionError:
        raise SettingsInvalid(name, "deep nesting", f"nest at most {DEPTH} levels") from None
    document = Document(name)
    if root is None:  # nothing but comments
        return document
    if not isinstance(root, yaml.MappingNode):
        raise SettingsInvalid(
            f"{name}:{_line(root)}",
            "a list" if isinstance(root, yaml.SequenceNode) else "a single value",
            "start with `key: value` lines, such as `models:`",
        )
    document.values.update(_mapping(document, root, (), set()))
    return document


def value(text: str) -> Any:
    """What a YAML text means, as `yaml.safe_load` has it but for the floats. Raises YAMLError and ValueError."""
    return yaml.load(text, Loader=Loader)  # noqa: S506 - it is a SafeLoader


def written(values: Any) -> str:
    """Plain values as YAML, their keys in order, which `parse` and `value` read again."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _text(path: Path) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise SettingsInvalid(str(path), "not a file", "name a YAML file")
        if found.st_size > FILE_BYTES:
            raise SettingsInvalid(str(path), f"{found.st_size} bytes", f"a settings file has at most {FILE_BYTES}")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SettingsInvalid(str(path), "no such file", "check the path") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(str(path), "not UTF-8 text", "name a YAML file") from None
    except OSError as wrong:
        raise SettingsInvalid(str(path), wrong.strerror or str(wrong), "make the file readable") from None


def _syntax(name: str, wrong: yaml.MarkedYAMLError) -> SettingsInvalid:
    mark = wrong.problem_mark or wrong.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    problem = wrong.problem or "not YAML"
    if "'\\t'" in problem:
        return SettingsInvalid(where, "a tab", "indent with spaces: YAML takes no tabs")
    return SettingsInvalid(where, problem, "write it as YAML: `key: value`, two spaces a level")


def _value(document: Document, node: yaml.Node, keys: Keys, above: set[int]) -> Any:
    """The plain value of a node. `above` holds the nodes it stands in."""
    if len(keys) > DEPTH:
        raise SettingsInvalid(f"{document.name}:{_line(node)}", "deep nesting", f"nest at most {DEPTH} levels")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(document, node, keys)
    # One node object in two places is an alias; nine levels of nine of them are a file that fills the memory.
    if id(node) in above:
        raise SettingsInvalid(f"{document.name}:{_line(node)}", "an alias", "write it out: `&` and `*` are not read")
    above.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return list(_elements(document, node, keys, above))
    assert isinstance(node, yaml.MappingNode)
    return _mapping(document, node, keys, above)


def _elements(document: Document, node: yaml.SequenceNode, keys: Keys, above: set[int]) -> Iterator[Any]:
    for index, element in enumerate(node.value):
        document.lines[*keys, index] = _line(element)
        yield _value(document, element, (*keys, index), above)


def _mapping(document: Document, node: yaml.MappingNode, keys: Keys, above: set[int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in node.value:
        where = f"{document.name}:{_line(key)}"
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            raise SettingsInvalid(where, key.value, "a key is a plain word")
        if key.value in values:
            first = document.lines[*keys, key.value]
            raise SettingsInvalid(where, f"a second {key.value!r}", f"it stands on line {first} already")
        document.lines[*keys, key.value] = _line(key)
        values[key.value] = _value(document, value, (*keys, key.value), above)
    return values


def _scalar(document: Document, node: yaml.ScalarNode, keys: Keys) -> Any:
    where = f"{'.'.join(map(str, keys))} ({document.name}:{_line(node)})"
    kind = node.tag.rpartition(":")[2]
    if kind in ("str", "timestamp") or (kind in ("int", "float") and SEXAGESIMAL.fullmatch(node.value)):
        return node.value
    if kind not in ("int", "float", "bool", "null"):
        raise SettingsInvalid(where, node.tag, "tags are not read; quote the value if it is a text")
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except ValueError:  # more digits than Python converts, or `!!int abc`
        raise SettingsInvalid(where, node.value, "quote it if it is a text") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsInvalid(where, node.value, "give a finite number")
    return value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
