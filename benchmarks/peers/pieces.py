"""The file of a size and a precision: pieces that were measured one by one, merged into rows of a table.

A piece compares our engine with one peer in one run; the ratio of a cell is the median of the pieces' own ratios, so
that no figure is divided by one of another hour. Knows JSON. Measures nothing.
"""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from actors.models.kernels.building import processor_features
from benchmarks.peers.disturbance import disturbed
from benchmarks.peers.workload import COLUMNS
from benchmarks.record import RESULTS

Piece = dict[str, Any]


def file(size: str, precision: str, folder: Path = RESULTS) -> Path:
    """Where the pieces are: kinds of machine have files of their own, those with AMX the plain one."""
    return folder / f"engine_throughput_{size}_{precision}{_kind()}.json"


def _kind() -> str:
    features = processor_features()
    if "amx_tile" in features:
        return ""
    return "_avx512" if "avx512f" in features else "_avx2"


def read(path: Path) -> list[Piece]:
    """All pieces; none of a file that is not there, or of one in an older shape."""
    if not path.is_file():
        return []
    found: list[Piece] = json.loads(path.read_text("utf-8")).get("pieces", [])
    return found


def add(path: Path, piece: Piece, size: str, precision: str, question: str) -> None:
    """Keep a piece: beside others of its peer at its commit, in the place of those at another.

    One that was disturbed is kept only until there is a better one.
    """
    others = [one for one in read(path) if one["peer"] != piece["peer"]]
    same = [one for one in read(path) if one["peer"] == piece["peer"] and one["commit"] == piece["commit"]]
    kept = [*others, *(one for one in same if "failed" not in one and not disturbed(one.get("meanwhile")))]
    measured = any("ratio" in one for one in kept if one["peer"] == piece["peer"])
    if measured and ("failed" in piece or disturbed(piece.get("meanwhile"))):
        return
    document = {"question": question, "size": size, "quantization": precision, "pieces": [*kept, piece]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def rows(pieces: Sequence[Piece], side: str) -> dict[str, float]:
    """Medians of "ours" or "theirs" in each column that any of the pieces has, tokens a second."""
    found = {}
    for column in COLUMNS:
        samples = [figure for piece in pieces for figure in piece.get(side, {}).get("samples", {}).get(column, [])]
        if samples:
            found[column] = statistics.median(samples)
    return found


def ratio(pieces: Iterable[Piece], column: str) -> float | None:
    """Ours to theirs, the median of what each piece found."""
    found = [piece["ratio"][column] for piece in pieces if column in piece.get("ratio", {})]
    return statistics.median(found) if found else None


def of_limit(pieces: Iterable[Piece], column: str) -> float | None:
    """Which share of the machine's limit we reached, the median over pieces of what was measured in each."""
    found = [
        statistics.median(piece["ours"]["samples"][column]) / piece["limits"][column]
        for piece in pieces
        if column in (piece.get("limits") or {}) and piece.get("ours", {}).get("samples", {}).get(column)
    ]
    return statistics.median(found) if found else None


def best(by_peer: dict[str, list[Piece]], column: str) -> tuple[str, float] | None:
    """(the peer that comes nearest to us or leaves us behind most, our ratio to it)."""
    found = [(value, peer) for peer, pieces in by_peer.items() if (value := ratio(pieces, column)) is not None]
    return (min(found)[1], min(found)[0]) if found else None


def grouped(pieces: Iterable[Piece]) -> dict[str, list[Piece]]:
    """By peer, in the order in which they were measured."""
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece["peer"], []).append(piece)
    return found
