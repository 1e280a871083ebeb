"""Data to train on: JSONL files of conversations, what they digest to, and what a training step takes of them.

Owns the form of a line and the order in which steps take lines. Knows no weights.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import InvalidRequest

LINE = 'each line is {"messages": [{"role": ..., "content": ...}, ...]} or {"prompt": ..., "answer": ...}'
_CHUNK = 1 << 20
_FOREIGN = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8, and UTF-8 never

Messages = list[dict[str, Any]]


def files(path: Path, field: str) -> list[Path]:
    """The JSONL file, or those of a folder, by name. Raises InvalidRequest where there is none."""
    found = [path] if path.is_file() else sorted(path.rglob("*.jsonl")) if path.is_dir() else []
    if not found:
        problem = "it holds no .jsonl file" if path.is_dir() else "there is no such file or folder"
        raise InvalidRequest(field, str(path), f"{problem}; {LINE}")
    return found


def digest(path: Path, field: str) -> str:
    """Of names and content. Raises InvalidRequest where there is nothing."""
    hashed = hashlib.sha256()
    for file in files(path, field):
        hashed.update(file.name.encode() + b"\0")
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                hashed.update(chunk)
    return hashed.hexdigest()


def stamps(path: Path, field: str) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of each file: where these are the same nobody has to read them again."""
    found = [(file, file.stat()) for file in files(path, field)]
    return tuple((file.name, stat.st_size, stat.st_mtime_ns) for file, stat in found)


def lines(path: Path, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line with where it stands. Raises InvalidRequest for one that is no JSON object, or not in UTF-8."""
    for file in files(path, field):
        with file.open(encoding="utf-8", errors="surrogateescape") as opened:  # so that it is known which line is not
            for number, text in enumerate(opened, 1):
                if not text.strip():
                    continue
                where = f"{field} ({file.name}:{number})"
                if _FOREIGN.search(text):
                    said = text.strip().encode(errors="surrogateescape").decode(errors="replace")
                    raise InvalidRequest(where, said, f"it is not in UTF-8; save {file} in UTF-8; {LINE}")
                try:
                    found = json.loads(text)
                except (ValueError, RecursionError):
                    raise InvalidRequest(where, text.strip(), f"it is no JSON; {LINE}") from None
                if not isinstance(found, dict):
                    raise InvalidRequest(where, text.strip(), LINE)
                yield where, found


def conversation(line: Mapping[str, Any], where: str) -> Messages:
    """The messages of a line, the last of them the assistant's. Raises InvalidRequest."""
    given: Any = line.get("messages")
    if given is None and isinstance(line.get("prompt"), str) and isinstance(line.get("answer"), str):
        given = [{"role": "user", "content": line["prompt"]}, {"role": "assistant", "content": line["answer"]}]
    if not isinstance(given, list) or not all(map(said, given)) or len(given) < 2 or given[-1]["role"] != "assistant":
        raise InvalidRequest(where, json.dumps(line), f"{LINE}, and the assistant has the last word")
    return list(given)


def conversations(path: Path, field: str) -> Iterator[Messages]:
    """All that there are to train on. Raises InvalidRequest for a line that is none, and where there is no line."""
    where = None
    for where, line in lines(path, field):
        yield conversation(line, where)
    if where is None:
        raise InvalidRequest(field, str(path), f"no line is in it; {LINE}")


def said(message: Any) -> bool:
    """Whether it is a message: a role and a content, both texts."""
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation: its tokens, and of each whether it is learnt, as the assistant said it."""

    tokens: tuple[int, ...]
    learnt: tuple[bool, ...]


def write(file: Path, encoded: Sequence[Encoded]) -> None:
    """All of them in one file, which workers map into memory."""
    ends = np.cumsum([len(each.tokens) for each in encoded], dtype=np.int64)
    tokens = np.fromiter((token for each in encoded for token in each.tokens), np.int32, int(ends[-1]))
    learnt = np.fromiter((flag for each in encoded for flag in each.learnt), np.bool_, int(ends[-1]))
    part = file.with_suffix(".part")
    with part.open("wb") as opened:
        np.savez(opened, ends=ends, tokens=tokens, learnt=learnt)
    part.replace(file)


def order(count: int, seed: int, step: int, rows: int, rank: int, workers: int) -> list[int]:
    """The lines that `rank` takes at a step: every line once before any comes again, shuffled anew each time.

    A function of its arguments alone, so that a run that is cut goes on where it was.
    """
    first = (step * workers + rank) * rows
    found: list[int] = []
    for place in range(first, first + rows):
        turn = place // count
        shuffled = np.random.default_rng([seed, turn]).permutation(count)
        found.append(int(shuffled[place % count]))
    return found


def batch(file: Mapping[str, Any], chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, mask and labels [rows, the longest]: -100 where nothing is learnt, as torch has it."""
    ends = file["ends"]
    spans = [(int(ends[line - 1]) if line else 0, int(ends[line])) for line in chosen]
    width = max(end - begin for begin, end in spans)
    tokens = np.zeros((len(spans), width), np.int64)
    mask = np.zeros((len(spans), width), np.int64)
    labels = np.full((len(spans), width), -100, np.int64)
    for row, (begin, end) in enumerate(spans):
        size = end - begin
        tokens[row, :size], mask[row, :size] = file["tokens"][begin:end], 1
        labels[row, :size] = np.where(file["learnt"][begin:end], tokens[row, :size], -100)
    return tokens, mask, labels
