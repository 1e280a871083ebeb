"""Other engines on the same folder: a process of `benchmarks.peers.of_folder` that writes a JSON line for each row.

Knows those lines. Which engines there are, how they are installed and what weights they want is known over there; an
installation without that folder has no peers.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import InvalidRequest, StrataError, shorten
from pipelines.bench.figures import Load, Row, percentile

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "peers" / "of_folder.py"
PRECISIONS = (None, "int8", "int4")


@dataclass(frozen=True, slots=True)
class Heard:
    """`row` of a peer, or why it has none, or neither: it begins."""

    title: str
    row: Row | None = None
    failed: str = ""


def check(quantization: str | None) -> None:
    """Raises InvalidRequest where peers cannot be had at all."""
    if not SCRIPT.is_file():
        raise InvalidRequest("peers", "--peers", "run it from a checkout of Strata, whose benchmarks/ know them")
    if quantization not in PRECISIONS:
        raise InvalidRequest("quantization", quantization, "peers are compared in int8, int4 or unrounded weights")


def listen(folder: Path, quantization: str | None, load: Load, vocabulary: int) -> Iterator[Heard]:
    """All peers' rows, as they come. Raises StrataError if the process fails as a whole."""
    shape = [vocabulary, load.prompt_tokens, load.max_tokens, load.requests]
    words = [str(folder.resolve()), quantization or "none", *shape, *load.streams]
    command = [sys.executable, "-m", "benchmarks.peers.of_folder", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield from heard(process.stdout)
        said = process.stderr.read()
        if process.wait():
            last = said.strip().splitlines()[-1:] or ["it said nothing"]
            raise StrataError(f"comparing peers failed: {shorten(last[0], 300)}")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def heard(lines: Iterator[str] | Sequence[str]) -> Iterator[Heard]:
    """What each line says."""
    title = ""
    for line in lines:
        said: dict[str, Any] = json.loads(line)
        title = said.get("title", title)
        yield Heard(title, _row(said) if "streams" in said else None, said.get("failed", ""))


def _row(said: dict[str, Any]) -> Row:
    answers = said["answers_ms"]
    return {
        "streams": said["streams"],
        "requests": said["requests"],
        "failed": 0,
        "answer p50 ms": percentile(answers, 50),
        "tokens/s": said["tokens"] / said["seconds"],
        "seconds": said["seconds"],
    }
