"""Settle every setting from four layers: flag > environment > file > default, and remember which one won.

Knows any frozen pydantic tree and where its values came from. Knows none of its branches. Nothing else of
Strata reads the environment for settings; it is handed in here.
"""

import difflib
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from cluster import document
from cluster.document import Document, Keys, read
from cluster.errors import SettingsInvalid

PREFIX = "STRATA_"
_REFUSED: Final = "refused"
Root = TypeVar("Root", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting: its value, which layer it came from, and what it means."""

    key: str
    value: Any
    source: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Root]):
    """Settled settings and the source of each key that is not a default."""

    settings: Root
    sources: Mapping[Keys, str]

    def explain(self, key: str) -> list[Explained]:
        """The setting `key`, or all below it if it is a branch. Raises SettingsInvalid for an unknown key."""
        tree: Any = self.settings
        keys: Keys = ()
        for part in key.split(".") if key else ():
            tree, keys = _below(tree, keys, part)
        return [self._explained(found, value, meaning) for found, value, meaning in leaves(tree, keys)]

    def _explained(self, keys: Keys, value: Any, meaning: str) -> Explained:
        return Explained(dotted(keys), value, self.sources.get(keys, "default"), meaning)


def load(
    root: type[Root],
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded[Root]:
    """Settle `root` from its layers. `flags` maps dotted keys to values; those that are None were not given.

    Raises SettingsInvalid naming the full key, the value, its source and what would be accepted.
    """
    draft = _Draft(root)
    if file is not None:
        draft.begin(read(file))
    for name, text in sorted((environment or {}).items()):
        keys = _environment_keys(root, name)
        if keys:
            draft.put(keys, _decode(root, keys, text), f"environment {name}")
    for key, value in (flags or {}).items():
        if value is not None:
            keys = _keys(key)
            draft.put(keys, _decode(root, keys, value) if isinstance(value, str) else value, f"flag {_flag(keys)}")
    return Loaded(settle(root, draft.values, draft.sources), draft.sources)


def settle(root: type[Root], values: Mapping[str, Any], sources: Mapping[Keys, str] | None = None) -> Root:
    """The tree that plain values describe. Raises SettingsInvalid."""
    try:
        # By way of JSON, so that strict means: a number is no text and a truth value no number, yet a list is a tuple.
        return root.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as wrong:
        raise _invalid(root, wrong.errors(include_url=False)[0], sources or {}) from None
    except (TypeError, ValueError) as wrong:
        raise SettingsInvalid("settings", str(wrong), "give plain texts, numbers, lists and mappings") from None


def refused(key: str, given: Any, remedy: str) -> PydanticCustomError:
    """What a rule of a branch raises of a dotted key below it, so that the error names it. None: it is not set."""
    return PydanticCustomError(_REFUSED, "{remedy}", {"key": key, "given": given, "remedy": remedy})


class _Draft:
    """Values on their way to being settled, each with its source."""

    def __init__(self, root: type[BaseModel]) -> None:
        self.root = root
        self.values: dict[str, Any] = {}
        self.sources: dict[Keys, str] = {}

    def begin(self, document: Document) -> None:
        """Take the file's values as the first layer."""
        self.values = document.values
        self.sources = {keys: f"{document.name}:{line}" for keys, line in document.lines.items()}

    def put(self, keys: Keys, value: Any, source: str) -> None:
        """Set one value, making what it stands in."""
        place: Any = self.values
        for depth, key in enumerate(keys):
            self._open(place, keys, depth, source)
            if depth == len(keys) - 1:
                place[key] = value
            elif key in (place if isinstance(place, dict) else range(len(place))):
                place = place[key]
            else:
                place[key] = _default(self.root, keys[: depth + 1]) if isinstance(keys[depth + 1], int) else {}
                place = place[key]
        for stale in [found for found in self.sources if found[: len(keys)] == keys]:
            del self.sources[stale]
        self.sources |= {(*keys, *below): source for below in _branches(value)}

    def _open(self, place: Any, keys: Keys, depth: int, source: str) -> None:
        """Make sure that `keys[depth]` can be set in `place`; one past the end of a list begins an element."""
        key, above = keys[depth], dotted(keys[:depth])
        if isinstance(place, list):
            if not isinstance(key, int) or key > len(place):
                raise SettingsInvalid(f"{dotted(keys)} ({source})", key, f"{above} is a list of {len(place)}, from 0")
            if key == len(place):
                place.append({})
        elif not isinstance(place, dict) or not isinstance(key, str):
            raise SettingsInvalid(f"{dotted(keys)} ({source})", key, f"{above} has nothing below it by that name")


def _branches(value: Any) -> Iterator[Keys]:
    """The keys of a nested value, its own first."""
    yield ()
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in below:
        yield from ((key, *keys) for keys in _branches(inner))


def _flag(keys: Keys) -> str:
    return f"--{str(keys[-1]).replace('_', '-')}"


def leaves(tree: Any, keys: Keys = (), meaning: str = "") -> Iterator[tuple[Keys, Any, str]]:
    """Every setting in a settled tree: its keys, its value, its meaning."""
    if isinstance(tree, BaseModel):
        for name, field in type(tree).model_fields.items():
            yield from leaves(getattr(tree, name), (*keys, name), field.description or "")
    elif isinstance(tree, list | tuple) and any(isinstance(element, BaseModel) for element in tree):
        for index, element in enumerate(tree):
            yield from leaves(element, (*keys, index))
    else:
        yield keys, tree, meaning


def dotted(keys: Keys) -> str:
    """`("models", 0, "name")` as `models.0.name`."""
    return ".".join(map(str, keys))


def _below(tree: Any, keys: Keys, part: str) -> tuple[Any, Keys]:
    if isinstance(tree, BaseModel):
        if part in type(tree).model_fields:
            return getattr(tree, part), (*keys, part)
        raise SettingsInvalid(dotted((*keys, part)), "an unknown key", _nearest(part, type(tree).model_fields, keys))
    if isinstance(tree, list | tuple) and part.isdigit() and int(part) < len(tree):
        return tree[int(part)], (*keys, int(part))
    remedy = f"{dotted(keys)} has {len(tree)} elements, counted from 0" if isinstance(tree, list | tuple) else ""
    raise SettingsInvalid(dotted((*keys, part)), "an unknown key", remedy or f"{dotted(keys)} has nothing below it")


def _keys(key: str) -> Keys:
    return tuple(int(part) if part.isdecimal() and len(part) < 6 else part for part in key.split("."))


def _environment_keys(root: type[BaseModel], name: str) -> Keys:
    """The keys that a variable sets; none if it is not a setting, such as STRATA_API_KEY."""
    rest = name.removeprefix(PREFIX).lower()
    if not name.startswith(PREFIX) or ("__" not in rest and rest not in root.model_fields):
        return ()
    return _keys(rest.replace("__", "."))


def _default(root: type[BaseModel], keys: Keys) -> Any:
    """What a list holds when nobody set it."""
    tree: Any = root().model_dump(mode="json")
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, list) else []


def _decode(root: type[BaseModel], keys: Keys, text: str) -> Any:
    """What a text from the environment or the command line means for the setting at `keys`."""
    kinds = set(_kinds(_annotation(root, keys)))
    if str in kinds and not (type(None) in kinds and text.lower() in ("", "null", "none")):
        return text
    try:
        return document.value(text)
    except (yaml.YAMLError, ValueError):
        return text


def _annotation(root: Any, keys: Keys) -> Any:
    """The type that stands at `keys`; Any where there is none."""
    kind = root
    for key in keys:
        inner = [found for found in _kinds(kind, plain=False) if found is not type(None)]
        model = next((found for found in inner if isinstance(found, type) and issubclass(found, BaseModel)), None)
        if isinstance(key, str) and model is not None and key in model.model_fields:
            kind = model.model_fields[key].annotation
        elif isinstance(key, int) and inner and get_args(inner[0]):
            kind = get_args(inner[0])[0]
        elif isinstance(key, str) and inner and get_origin(inner[0]) is dict:
            kind = get_args(inner[0])[1]
        else:
            return Any
    return kind


def _kinds(kind: Any, plain: bool = True) -> Iterator[Any]:
    """The alternatives of a type; with `plain`, paths and literal texts count as str."""
    if get_origin(kind) in (Union, types.UnionType):
        for one in get_args(kind):
            yield from _kinds(one, plain)
    elif plain and (kind is Path or get_origin(kind) is Literal):
        yield str
    else:
        yield kind


def _invalid(root: type[BaseModel], error: ErrorDetails, sources: Mapping[Keys, str]) -> SettingsInvalid:
    told = error["ctx"] if error["type"] == _REFUSED else None
    keys: Keys = (*error["loc"], *(_keys(told["key"]) if told else ()))
    above = [sources[keys[:length]] for length in range(len(keys), 0, -1) if keys[:length] in sources]
    below = [source for found, source in sources.items() if keys and found[: len(keys)] == keys]
    key = dotted(keys) + "".join(f" ({source})" for source in (above + below)[:1])
    if told is not None:
        return SettingsInvalid(
            key, "nothing" if told["given"] is None else _shown(told["given"], ruled=True), told["remedy"]
        )
    if error["type"] == "extra_forbidden":
        parent = _annotation(root, keys[:-1])
        model = next((k for k in _kinds(parent) if isinstance(k, type) and issubclass(k, BaseModel)), root)
        return SettingsInvalid(key, "an unknown key", _nearest(str(keys[-1]), model.model_fields, keys[:-1]))
    if error["type"] == "missing":
        return SettingsInvalid(key, "nothing", "it has to be set")
    return SettingsInvalid(key, _shown(error["input"], ruled=error["type"] == "value_error"), _remedy(error))


# What pydantic found wrong, as we say it; its own words are for programmers. In braces stands its rule.
REMEDIES = {
    "int_": "it is a whole number",
    "float_": "it is a number",
    "finite_number": "it is a finite number",
    "bool_": "it is true or false",
    "string_type": "it is a text",
    "string_pattern_mismatch": "it has to match {pattern}",
    "string_too_short": "it has at least {min_length} characters",
    "string_too_long": "it has at most {max_length} characters",
    "too_short": "it holds at least {min_length}",
    "literal_error": "it is one of {expected}",
    "greater_than_equal": "it is at least {ge}",
    "greater_than": "it is above {gt}",
    "less_than_equal": "it is at most {le}",
    "less_than": "it is below {lt}",
    "path_": "it is a path",
    "tuple_": "it is a list",
    "list_": "it is a list",
    "dict_": "it is a mapping",
    "mapping_": "it is a mapping",
    "model_": "it is a mapping",
    "none_required": "it is nothing: leave it out",
}


def _remedy(error: ErrorDetails) -> str:
    """What would be accepted. A rule of our own says it itself."""
    said = next((words for kind, words in REMEDIES.items() if error["type"].startswith(kind)), None)
    if said is None:
        return error["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return said.format_map(error.get("ctx", {}))


def _shown(given: Any, *, ruled: bool) -> Any:
    """A value as an error shows it: a text in quotes, or nobody sees why "8000" is no number.

    `ruled`: by a rule on what is given, which is of the kind that is wanted.
    """
    if given in ([], {}):
        return "nothing"
    if isinstance(given, list | dict):  # never what it holds, which may be a secret
        kind = "list" if isinstance(given, list) else "mapping"
        return f"what this {kind} holds" if ruled else f"a {kind}"
    return f'"{given}"' if isinstance(given, str) else given


def _nearest(part: str, known: Mapping[str, Any], keys: Keys) -> str:
    close = difflib.get_close_matches(part.lower(), list(known), n=1, cutoff=0.5)
    if close:
        return f"did you mean {dotted((*keys, close[0]))}?"
    return f"{dotted(keys) or 'the top level'} knows {', '.join(known)}"
