"""What the files beside a tokenizer.json say: names of special tokens, chat templates, end tokens.

Reads a Hugging Face folder. Runs nothing that is in it.
"""

import json
from pathlib import Path
from typing import Any

from cluster.errors import ModelInvalid

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def require(folder: Path) -> None:
    """Raises ModelInvalid where there is no such folder."""
    if folder.is_dir():
        return
    if folder.exists():
        raise ModelInvalid(str(folder), "this is a file", "give the folder of a Hugging Face model")
    hub = not folder.is_absolute() and len(folder.parts) == 2 and ".." not in folder.parts
    remedy = "names of the Hugging Face hub are not fetched: " if hub else ""
    raise ModelInvalid(str(folder), "there is no such folder", f"{remedy}give a folder with a model in it")


def read_text(file: Path) -> str:
    """The text of a file that must be there. Raises ModelInvalid."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        problem = "it is missing" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error}"
        raise ModelInvalid(
            str(file), problem, "save the model with transformers' save_pretrained or download it again"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file that may be absent (then an empty one). Raises ModelInvalid."""
    if not file.exists():
        return {}
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(str(file), f"it is no JSON: {error}", "save or download it again") from error
    if not isinstance(content, dict):
        raise ModelInvalid(str(file), "it holds no JSON object", "save or download it again")
    return content


def special_names(folder: Path) -> dict[str, str]:
    """Texts of the named special tokens (`bos_token`, ...), the variables that a chat template may use."""
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # before that key, the names stood in a file of their own
        config |= read_json(folder / "special_tokens_map.json")
    extra = config.get("extra_special_tokens")
    named = {key: value for key, value in config.items() if key in NAMED or key.endswith("_token")}
    named |= extra if isinstance(extra, dict) else {}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def chat_templates(folder: Path) -> dict[str, str]:
    """Sources of the chat templates by name; files win over tokenizer_config.json, as in transformers."""
    found: dict[str, str] = {}
    if (folder / "chat_template.jinja").is_file():
        found["default"] = read_text(folder / "chat_template.jinja")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[file.stem] = read_text(file)
    if found:
        return found
    listed = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(listed, list):
        listed = {entry["name"]: entry["template"] for entry in listed if {"name", "template"} <= entry.keys()}
    found = listed if isinstance(listed, dict) else {} if listed is None else {"default": listed}
    if not all(isinstance(source, str) for source in found.values()):
        raise ModelInvalid(str(folder / "tokenizer_config.json"), "a chat template is no text", "mend the file")
    return found


def end_tokens(folder: Path, eos: int | None) -> tuple[int, ...]:
    """The ids that end an answer: generation_config.json's (else config.json's) and the tokenizer's own."""
    config = read_json(folder / "config.json")
    inner = config.get("text_config")  # where a model of several media keeps its decoder's
    sources = (read_json(folder / "generation_config.json"), config, inner if isinstance(inner, dict) else {})
    listed: Any = next((found for source in sources if (found := source.get("eos_token_id")) is not None), [])
    ids = listed if isinstance(listed, list) else [listed]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise ModelInvalid(str(folder), f"eos_token_id is {listed!r}", "give a token id or a list of them")
    return tuple(dict.fromkeys([*ids, *([] if eos is None else [eos])]))
