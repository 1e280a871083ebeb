"""`strata chat`: a conversation in the terminal, each answer shown as it comes."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from cluster.errors import InvalidRequest, StrataError
from pipelines.cli import show
from pipelines.cli.asking import gateway
from pipelines.driver import Client


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks of every answer."""

    model: str | None
    temperature: float
    max_tokens: int | None

    @property
    def sampling(self) -> dict[str, Any]:
        given = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in given.items() if value is not None}


def run(message: str | None, asked: Asked, file: Path | None, *, url: str | None, as_json: bool) -> None:
    """One answer if there is a message, else a conversation until end of input."""
    with gateway(file, url) as strata:
        model = asked.model or strata.models()[0]
        if as_json:
            answer = strata.chat(well_formed(message or heard(sys.stdin).read()), model, **asked.sampling)
            show.document({"text": answer.text, "finish_reason": answer.finish_reason, "usage": answer.usage})
        elif message is not None:
            tell(strata.stream(well_formed(message), model, **asked.sampling))
        else:
            converse(strata, model, asked)


def converse(strata: Client, model: str, asked: Asked) -> None:
    """Ask, answer, remember; Ctrl-C cuts an answer short and Ctrl-D leaves."""
    show.progress(f"{model}. An empty line or Ctrl-D leaves, Ctrl-C cuts an answer short.")
    turns: list[dict[str, str]] = []
    while text := ask():
        turns.append({"role": "user", "content": text})
        try:
            well_formed(text)
            turns.append({"role": "assistant", "content": tell(strata.stream(turns, model, **asked.sampling))})
        except StrataError as wrong:
            turns.pop()
            show.failure(wrong, as_json=False)


def ask() -> str:
    """The next line of the person; empty at the end of input."""
    try:
        return input("> ").strip() if sys.stdin.isatty() else heard(sys.stdin).readline().strip()
    except (EOFError, KeyboardInterrupt):
        return ""


def heard(stream: TextIO) -> TextIO:
    """The stream, whose bytes that are no text come as lone surrogates in every locale."""
    if isinstance(stream, TextIOWrapper) and stream.errors != "surrogateescape":
        stream.reconfigure(errors="surrogateescape")
    return stream


def well_formed(text: str) -> str:
    """The text. Raises InvalidRequest for one that was made of bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError as wrong:
        raise InvalidRequest("message", f"character {wrong.start + 1}", "it is no text: send UTF-8") from None
    return text


def tell(pieces: Iterator[str]) -> str:
    """Write an answer as it comes; what was written."""
    written: list[str] = []
    try:
        for piece in pieces:
            written.append(piece)
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass  # the stream is closed, which cancels the rest
    sys.stdout.write("\n")
    return "".join(written)
