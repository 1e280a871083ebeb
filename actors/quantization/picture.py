"""Draw a report as one small SVG, by hand: bars of before and after, and a map of what suffers where.

Knows a report's numbers. Needs no plotting library.
"""

import math

from actors.quantization.report import Report
from actors.quantization.sensitivity import PARTS, Sensitivity
from cluster.svg import page, text

WIDTH, BAR, LEFT = 720, 18, 150
OLD, NEW, MARK = "#94a3b8", "#2563eb", "#dc2626"
COLUMNS = tuple(PARTS)
CELL, ROW = 110, 16


def draw(report: Report) -> str:
    """The SVG."""
    bars, height = _bars(report)
    map_, height = _map(report, height + 30)
    title = f"{report.model} to {report.to} by {report.method}"
    return page(WIDTH, height + 10, title, f"{_legend()}{_measured_on(report)}{bars}{map_}")


def _bars(report: Report) -> tuple[str, int]:
    old, new = report.before, report.after
    pairs = [
        ("weights, MB", old.weight_bytes / 1e6, new.weight_bytes / 1e6),
        ("peak memory, MB", old.peak_bytes / 1e6, new.peak_bytes / 1e6),
        ("perplexity", old.perplexity, new.perplexity),
    ]
    if old.exact_match is not None and new.exact_match is not None:
        pairs.append(("exact match, %", old.exact_match, new.exact_match))
    pairs += [
        (f"tokens/s, {batch} at a time", speed, new.tokens_a_second.get(batch, 0.0))
        for batch, speed in old.tokens_a_second.items()
    ]
    drawn, top = "", 44
    for name, before, after in pairs:
        scale = (WIDTH - LEFT - 90) / max(before, after, 1e-9)
        drawn += text(LEFT - 8, top + 21, name, anchor="end")
        for value, colour, at in ((before, OLD, top), (after, NEW, top + BAR)):
            drawn += f'<rect x="{LEFT}" y="{at}" width="{value * scale:.1f}" height="{BAR - 3}" fill="{colour}"/>'
            drawn += text(LEFT + value * scale + 6, at + 12, _number(value))
        top += 2 * BAR + 10
    return drawn, top


def _measured_on(report: Report) -> str:
    return text(16, 40, f"perplexity and damage on {report.text}", size=10)


def _legend() -> str:
    drawn = ""
    for x, colour, name in ((WIDTH - 150, OLD, "before"), (WIDTH - 75, NEW, "after")):
        drawn += f'<rect x="{x}" y="14" width="11" height="11" fill="{colour}"/>' + text(x + 16, 24, name)
    return drawn


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _map(report: Report, top: int) -> tuple[str, int]:
    """A row for each layer, a column for each part, redder where rounding it alone does more damage."""
    found = report.sensitivities
    if not found:
        return "", top
    logs = [math.log10(max(one.divergence, 1e-9)) for one in found]
    low, high = min(logs), max(*logs, min(logs) + 1e-6)
    worst = {(one.layer, one.part) for one in report.suggested}
    drawn = text(16, top, "damage of rounding one part alone, nats a token (framed: leave it alone)")
    for index, part in enumerate(COLUMNS):
        drawn += text(LEFT + index * CELL + CELL / 2, top + 20, part, anchor="middle")
    outside = [one for one in found if one.layer < 0]
    layers = sorted({one.layer for one in found if one.layer >= 0})
    drawn_rows = {one.part: y for y, one in enumerate(outside)}
    at = top + 28
    for one in found:
        row = drawn_rows[one.part] if one.layer < 0 else len(outside) + layers.index(one.layer)
        column = 0 if one.layer < 0 else COLUMNS.index(one.part)
        share = (math.log10(max(one.divergence, 1e-9)) - low) / (high - low)
        drawn += _cell(one, LEFT + column * CELL, at + row * ROW, share, (one.layer, one.part) in worst)
    names = [one.part for one in outside] + [f"layer {layer}" for layer in layers]
    drawn += "".join(text(LEFT - 8, at + y * ROW + 12, name, anchor="end") for y, name in enumerate(names))
    return drawn, at + len(names) * ROW


def _cell(one: Sensitivity, x: float, y: float, share: float, framed: bool) -> str:
    red, other = 255, round(245 - 165 * share)
    edge = f'stroke="{MARK}" stroke-width="2"' if framed else 'stroke="#fff"'
    return (
        f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{ROW - 2}" fill="rgb({red},{other},{other})" {edge}/>'
        + text(x + CELL / 2, y + 11, f"{one.divergence:.1e}", anchor="middle", size=10)
    )
