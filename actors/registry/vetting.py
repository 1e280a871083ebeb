"""What the files of a model have to be before they become a version: a config, a tokenizer, templates, weights.

Knows what stands in them as far as everybody who loads a model relies on it. Runs nothing, and knows no architectures:
folders of new ones are pushed by right.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.errors import ModelInvalid, shorten
from cluster.storage.tensors import headers

CONFIG, TOKENIZER, CHAT = "config.json", "tokenizer.json", "tokenizer_config.json"
WEIGHTS = ".safetensors"
INDEX = f"{WEIGHTS}.index.json"  # how the name of a list of what is in which file ends
EMBEDDING = "model.embed_tokens.weight"  # of all decoders of transformers that have a tensor of this name
_FLOATS = ("F64", "F32", "F16", "BF16")  # as others it may be packed, which its shape shows
_SAVE = "write it with save_pretrained"
_COPY = "copy all files of the model, then push again"
_PART = re.compile(r"(?P<stem>.+)-[0-9]{5,}-of-(?P<count>[0-9]{5,})\.safetensors")
_MOST_PARTS = _MOST_LAYERS = 10_000
_LAYER = re.compile(r"(?:model\.|language_model\.model\.|model\.language_model\.)?layers\.([0-9]{1,5})\.")


def vet(files: Mapping[str, Path]) -> None:
    """Raises ModelInvalid for `files`, by their names in the folder, that cannot be a model."""
    config = _config(files[CONFIG])
    for name, path in files.items():
        if name.endswith(INDEX):
            _check_index(name, path, files)
    _check_parts(files)
    if TOKENIZER in files:
        _check_tokenizer(files[TOKENIZER])
    for path, source in _templates(files):
        _check_template(path, source)
    _check_weights(files, config)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelInvalid(str(path), "is no JSON object with a model_type", _SAVE)
    if config.get("auto_map"):
        remedy = "only architectures that transformers ships are run; take auto_map away"
        raise ModelInvalid(str(path), "asks for code of its own (auto_map)", remedy)
    return config


def _check_index(name: str, path: Path, files: Mapping[str, Path]) -> None:
    """Every file that it names has to be there, and have the tensors that it names: a copy that was cut lacks some."""
    try:
        listed = json.loads(path.read_text("utf-8"))["weight_map"]
        homes = {tensor: str(PurePosixPath(name).with_name(file)) for tensor, file in listed.items()}
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise ModelInvalid(str(path), "is no JSON object with a weight_map of file names", _SAVE) from None
    wanted = set(homes.values())
    if missing := sorted(wanted - set(files)):
        raise ModelInvalid(str(path), f"names {_some(missing)}, not there", _COPY)
    there = {file: {tensor for tensor, _ in headers(files[file])} for file in wanted if file.endswith(WEIGHTS)}
    if lost := [tensor for tensor, file in homes.items() if file in there and tensor not in there[file]]:
        raise ModelInvalid(str(path), f"names {_some(lost)}, which {homes[lost[0]]} does not have", _COPY)


def _check_parts(files: Mapping[str, Path]) -> None:
    """Of a file that says which part it is, all others have to be there, whether or not an index names them."""
    for name, path in files.items():
        if found := _PART.fullmatch(name):
            stem, digits, count = found["stem"], len(found["count"]), int(found["count"])
            parts = (f"{stem}-{number:0{digits}}-of-{found['count']}{WEIGHTS}" for number in range(1, count + 1))
            if count <= _MOST_PARTS and (missing := [part for part in parts if part not in files]):
                raise ModelInvalid(str(path), f"is a part of a model of which {_some(missing)} is not there", _COPY)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_tokenizer(path: Path) -> None:
    import tokenizers  # noqa: PLC0415 - heavy, and most of the registry does without

    try:
        tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as wrong:  # noqa: BLE001 (tokenizers raises nothing narrower)
        problem = f"is no tokenizer ({shorten(str(wrong))})"
        raise ModelInvalid(str(path), problem, "save it with tokenizer.save_pretrained") from None


def _templates(files: Mapping[str, Path]) -> Iterator[tuple[Path, str]]:
    """Sources of the chat templates, in each place where transformers looks for them."""
    for name, path in files.items():
        if name == "chat_template.jinja" or PurePosixPath(name).match("additional_chat_templates/*.jinja"):
            try:
                yield path, path.read_text("utf-8")
            except ValueError:
                raise ModelInvalid(str(path), "is no text in UTF-8", "save the template again") from None
    for name in (CHAT, "chat_template.json"):
        if name in files:
            found = _object(files[name]).get("chat_template")
            for each in found if isinstance(found, list) else [found] if found is not None else []:
                source = each.get("template") if isinstance(each, dict) else each
                if not isinstance(source, str):
                    problem = "has a chat_template that is no text, nor a list of those with names"
                    raise ModelInvalid(str(files[name]), problem, "mend the template")
                yield files[name], source


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelInvalid(str(path), "is no JSON object", _SAVE)
    return found


def _check_template(path: Path, source: str) -> None:
    from actors.engine import chat_template  # noqa: PLC0415 - jinja2 is for models that have a template

    chat_template.check(source, str(path))


def _check_weights(files: Mapping[str, Path], config: Mapping[str, Any]) -> None:
    tensors, layers = 0, set[int]()
    for name, path in files.items():
        if PurePosixPath(name).suffix != WEIGHTS:
            continue
        found = headers(path)
        tensors += len(found)
        for tensor, stored in found:
            if "/" not in name and (layer := _LAYER.match(tensor)):
                layers.add(int(layer[1]))
            if tensor == EMBEDDING and "/" not in name and stored.dtype in _FLOATS:
                _check_embedding(path, stored.shape, config)
    if not tensors:
        some = next(path for name, path in files.items() if name.endswith(WEIGHTS))
        raise ModelInvalid(str(some), "holds no tensor, and no other file does", "save the model with its weights")
    wanted = _said("num_hidden_layers", config)
    missing = sorted(set(range(wanted)) - layers) if layers and type(wanted) is int and wanted <= _MOST_LAYERS else []
    if missing:
        problem = f"says num_hidden_layers {wanted}, and there is no tensor of {_some([f'layer {n}' for n in missing])}"
        raise ModelInvalid(str(files[CONFIG]), problem, _COPY)


def _said(key: str, config: Mapping[str, Any]) -> object:
    """What the config says of the decoder, which a model of several media keeps in a part of it."""
    inner = config.get("text_config")
    return config.get(key, inner.get(key) if isinstance(inner, dict) else None)


def _check_embedding(path: Path, shape: tuple[int, ...], config: Mapping[str, Any]) -> None:
    wanted = [_said(key, config) for key in ("vocab_size", "hidden_size")]
    if all(type(number) is int for number in wanted) and list(shape) != wanted:
        said = f"vocab_size {wanted[0]} and hidden_size {wanted[1]}"
        problem = f"has {EMBEDDING} as {list(shape)} where config.json says {said}"
        raise ModelInvalid(str(path), problem, "push the config and the weights of one model")
