"""How the command line speaks: tables and colours for people, one JSON document for programs.

Knows what to print. Knows nothing of where it came from.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.errors import InvalidRequest, StrataError, shorten

out = Console(highlight=False, emoji=False)
err = Console(
    stderr=True, highlight=False, emoji=False
)  # progress goes here, so that --json leaves one document on stdout

LEAST, GAP = 20, 2  # characters: of a column that wraps, at least; between columns
# What a terminal would obey (ESC, CSI), cannot print (halves of pairs), or shows elsewhere or not at all (the marks of
# Unicode's bidirectional algorithm, tags): https://www.unicode.org/reports/tr36. Joiners stay, which scripts need.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def safe(text: str) -> str:
    """`text` with what a terminal would do more with than print it spelled out, as Python does."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def document(data: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(data, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write(_OBEYED.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], spare: Sequence[str] = ()) -> None:
    """Rows under headings, within the width of the terminal: words wrap, and `spare` columns go if they have to."""
    cells = [[safe(str(cell)) for cell in row] for row in rows]
    gone = left_out([list(columns), *cells], spare, out.width)
    kept = [place for place, column in enumerate(columns) if column not in gone]
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place in kept:
        widest = max(cell_len(row[place]) for row in [list(columns), *cells])
        whole = place == 0 and 2 * widest <= out.width  # what one copies stays in one piece
        drawn.add_column(columns[place], overflow="ellipsis" if whole else "fold", no_wrap=whole)
    for row in cells:
        drawn.add_row(*(escape(row[place]) for place in kept))
    out.print(drawn)
    if gone:
        line(f"[dim]no room for {', '.join(gone)}: a wider terminal or --json has it[/]")


def left_out(rows: Sequence[Sequence[str]], spare: Sequence[str], width: int) -> list[str]:
    """Of the `spare` columns those that go, in their order, until each other one has room for LEAST characters a line.

    The first of `rows` are the headings.
    """
    needs = {
        column: min(LEAST, max(cell_len(row[place]) for row in rows)) + GAP for place, column in enumerate(rows[0])
    }
    gone: list[str] = []
    for column in spare:
        if sum(needs.values()) - GAP <= width:
            break
        del needs[column]
        gone.append(column)
    return gone


def line(text: str) -> None:
    """One line for a person, with rich's markup: what comes from elsewhere goes in through `escape`."""
    out.print(safe(text), soft_wrap=True)


def words(text: str, style: str = "") -> None:
    """One line that comes from elsewhere, as it is."""
    out.print(safe(text), style=style, markup=False, soft_wrap=True)


def amount(size: int) -> str:
    """Bytes for a person."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def plain(entry: Any) -> dict[str, Any]:
    """A value's fields."""
    return {name: getattr(entry, name) for name in entry.__slots__}


def when(at: int) -> str:
    """A time for a person."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def first(message: str) -> str:
    """The first line of a commit's message."""
    return message.strip().partition("\n")[0]


def progress(text: str) -> None:
    """One line about what is going on, beside the result."""
    err.print(safe(text), soft_wrap=True, style="dim")


def warning(text: str) -> None:
    """One line about what is likely not meant, beside the result."""
    err.print(f"[bold yellow]warning[/] {safe(escape(text))}", soft_wrap=True)


def failure(wrong: Exception, as_json: bool) -> None:
    """One or two lines that say what went wrong and what to do."""
    known = isinstance(wrong, StrataError)
    text = str(wrong) if known else f"{type(wrong).__name__}: {shorten(str(wrong), 300)}"
    if as_json:
        kind = wrong.kind if isinstance(wrong, StrataError) else "internal_error"
        document({"error": {"type": kind, "message": text}})
        return
    err.print(f"[bold red]error[/] {safe(escape(text))}", soft_wrap=True)
    if not known:
        err.print("      This is not a fault that Strata knows. `strata doctor` may tell more.", style="dim")


def refuse_picture(file: Path) -> None:
    """Raises InvalidRequest for a file in which nothing can be drawn."""
    if file.suffix != ".svg":
        raise InvalidRequest("picture", str(file), "a name that ends in .svg")
    folder = file.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidRequest("picture", str(file), "a name in a folder that exists and that you may write to")
