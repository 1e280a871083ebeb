"""`strata models diff`: what became of one version in another, in words and bars.

Knows how a difference is told. What it is stands in `actors.registry.difference`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from actors.registry import finite
from actors.registry.difference import Difference
from actors.registry.folder import FACTS
from actors.registry.vocabulary import SETTINGS, Counts, Names
from cluster.errors import InvalidRequest
from pipelines.cli import show
from pipelines.cli.entrance import entered
from pipelines.cli.versions import bar, split

MOST_LINES = 200  # of a file's difference
STRIP = 72  # columns of the strip that shows where weights changed


def diff(before: str, after: str, file: Path | None, *, as_json: bool) -> None:
    """What became of one version in another of the same model."""
    model, old = split(before)
    other, new = split(after) if "@" in after else (model, after)
    if other != model:
        raise InvalidRequest("B", after, f"name a version of {model}")
    _, registry, _ = entered(file, "diff")
    with bar("comparing", registry.show(model, new).size, as_json=as_json) as advance:
        found = registry.diff(model, old, new, advance)
    if as_json:
        show.document({name: getattr(found, name) for name in found.__slots__})
        return
    if not (found.added or found.removed or found.changed):
        show.line("they are the same")
    _files(found)
    for name in found.tensors:
        _tensors(name, found)


def _files(found: Difference) -> None:
    for mark, names in (("+", found.added), ("-", found.removed)):
        for name in names:
            show.words(f"{mark} {name}")
    for key, (was, now) in found.metadata.items():
        show.words(f"~ {key}: {_value(was)} → {_value(now)}")
    for name, (before_size, size) in found.sizes.items():
        if name != FACTS:
            entries = counted(found.entries[name], found.named[name]) if name in found.entries else ""
            show.words(f"~ {name}: {sized(before_size, size)}{entries}")
    for name, lines in found.lines.items():
        if name != FACTS and name not in found.entries:  # whose keys and entries stand above
            _lines(lines)


def _tensors(name: str, found: Difference) -> None:
    """Of one file."""
    added, gone, changed = found.tensors[name]
    tensors = "tensor" if len(changed) == 1 else "tensors"
    counts = f"{len(changed)} {tensors} changed, {len(added)} added, {len(gone)} removed"
    show.line(f"[bold]{escape(name)}[/]: {counts}")
    norms = found.norms.get(name, {})
    if any(norms.values()):
        show.line(heat(list(norms.values()), min(STRIP, show.out.width)))
        show.line("[dim]each tensor's change over its norm, as they lie in the file[/]")
    odd = found.not_finite.get(name, {})
    largest = sorted(changed, key=lambda each: (each not in odd, -norms.get(each, 0.0)))
    rows = [("~", each, _change(norms.get(each), odd.get(each))) for each in largest]
    rows += [(mark, each, "") for mark, names in (("+", added), ("-", gone)) for each in names]
    show.table(("", "tensor", "change"), rows[:MOST_LINES])
    if len(rows) > MOST_LINES:
        show.line(f"[dim]and {len(rows) - MOST_LINES} tensors more; --json has them all[/]")


def _change(norm: float | None, odd: tuple[int, int] | None) -> str:
    """Of one tensor, in words."""
    if odd is not None:
        return finite.told(*odd)
    return "another shape" if norm is None else f"{100 * norm:.3g} %"


def sized(was: int, now: int) -> str:
    """Bytes before and after; exact where a person could not tell them apart."""
    before, after = show.amount(was), show.amount(now)
    if was == now:
        return f"{after}, as large as before"
    return f"{before} → {after}" if before != after else f"{was} B → {now} B"


def counted(entries: Mapping[str, Counts], named: Mapping[str, Names]) -> str:
    """What became of a tokenizer's entries, with the first of those that came and went."""
    parts = []
    for part, counts in entries.items():
        told = [f"{count} {word}" for count, word in zip(counts, ("added", "removed", "changed"), strict=True)]
        for place, names in enumerate(named[part]):
            if names and (place < 2 or part == SETTINGS):
                more = ", ..." if counts[place] > len(names) else ""
                told[place] += f" ({', '.join(map(_value, names))}{more})"
        parts.append(f"; {part}: {', '.join(told)}")
    return "".join(parts) or "; the same, written otherwise"


def _value(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _lines(lines: Sequence[str]) -> None:
    for text in lines[:MOST_LINES]:
        show.words(text, {"+": "green", "-": "red", "@": "cyan"}.get(text[:1], ""))
    if len(lines) > MOST_LINES:
        show.line(f"[dim]and {len(lines) - MOST_LINES} lines more; git shows them[/]")


def heat(norms: list[float], most: int) -> str:
    """A strip of at most so many blocks, the higher the larger the largest change that each stands for."""
    count = min(most, len(norms))
    parts = [norms[len(norms) * i // count : len(norms) * (i + 1) // count] for i in range(count)]
    return "".join(_block(max(part)) for part in parts)


def _block(norm: float) -> str:
    """Blank for none, a full block for 100 % and more, an eighth less for each factor of about 3 below."""
    return " ▁▂▃▄▅▆▇█"[0 if norm <= 0 else max(1, min(8, round(8 + 2 * math.log10(norm))))]
