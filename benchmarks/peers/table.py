"""The pieces of all sizes and precisions as one table in Markdown, for a terminal and for a README.

Knows how to write figures. Takes none.
"""

import statistics
from collections.abc import Sequence

from benchmarks.peers import pieces as kept
from benchmarks.peers.catalogue import PEERS, STRATA
from benchmarks.peers.disturbance import disturbed
from benchmarks.peers.pieces import Piece
from benchmarks.peers.workload import COLUMNS

HEADS = ("weights", "engine", "prefill", "batch 1", "batch 8", "batch 32", "load s", "peak MB", "first of 16")
WANTED_RATIO, WANTED_SHARE = 1.2, 0.85
NAMES = {"none": "bf16"}


def table(size: str, by_precision: dict[str, list[Piece]]) -> str:
    """One size."""
    lines = [f"| {size}: {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for precision, found in by_precision.items():
        if found:
            lines += _rows(precision, found)
    return "\n".join(lines)


def notes(by_precision: dict[str, list[Piece]]) -> list[str]:
    """A line for each peer that failed or does not have a precision: none is left out in silence."""
    lines = []
    for precision, found in by_precision.items():
        for piece in found:
            if disturbed(piece.get("meanwhile")):
                share = f"{100 * piece['meanwhile']['others']:.0f}%"
                lines.append(
                    f"{_title(piece['peer'])}, {NAMES.get(precision, precision)}: others had {share} of the machine"
                )
            if "failed" in piece:
                lines.append(f"{_title(piece['peer'])}, {NAMES.get(precision, precision)}: {piece['failed']}")
        for name, peer in PEERS.items():
            if found and precision not in peer.weights:
                lines.append(f"{_title(name)} has no {NAMES.get(precision, precision)} on a CPU")
    return lines


def _rows(precision: str, found: Sequence[Piece]) -> list[str]:
    by_peer = kept.grouped(found)
    measured = {peer: pieces for peer, pieces in by_peer.items() if any("ratio" in piece for piece in pieces)}
    every = [piece for pieces in measured.values() for piece in pieces]
    lines = []
    if every:
        lines.append(_row(STRATA.weights[precision], f"**{STRATA.title}**", every, "ours"))
    lines += [_row(pieces[0]["weights"], _title(peer), pieces, "theirs") for peer, pieces in measured.items()]
    lines += [
        f"| {pieces[0].get('weights', '')} | {_title(peer)} |" + " failed |" + " |" * (len(HEADS) - 3)
        for peer, pieces in by_peer.items()
        if peer not in measured
    ]
    if every:
        cells = [_against(measured, column) for column in COLUMNS]
        lines.append(f"| | *ours to the best peer* | {' | '.join(cells)} | | | |")
        shares = [(share, kept.of_limit(every, column)) for column, share in zip(COLUMNS, cells, strict=True)]
        lines.append(f"| | *of the limit* | {' | '.join(_percent(share) for _, share in shares)} | | | |")
    return lines


def _row(weights: str, title: str, found: Sequence[Piece], side: str) -> str:
    figures = kept.rows(found, side)
    sides = [piece[side] for piece in found if side in piece]
    load = statistics.median(one["load_seconds"] for one in sides)
    peak = max(one["peak_mb"] for one in sides)
    first = next((f"{one['first_equal']}" for one in sides if one.get("first_equal") is not None), "")
    cells = [_number(figures[column]) if column in figures else "" for column in COLUMNS]
    return f"| {weights} | {title} | {' | '.join(cells)} | {load:.1f} | {peak:,.0f} | {first} |"


def _against(measured: dict[str, list[Piece]], column: str) -> str:
    found = kept.best(measured, column)
    if found is None:
        return ""
    peer, ratio = found
    share = kept.of_limit([piece for pieces in measured.values() for piece in pieces], column) or 0.0
    mark = "" if ratio >= WANTED_RATIO or share >= WANTED_SHARE else " (!)"
    return f"{ratio:.2f} {_title(peer)}{mark}"


def _title(peer: str) -> str:
    return PEERS[peer].title if peer in PEERS else peer


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"
