"""Draw throughput against latency as concurrency grows, as one small SVG, by hand: a line for each engine.

Knows points. Needs no plotting library.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.svg import page, text

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 56, 48
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed")


@dataclass(frozen=True, slots=True)
class Point:
    """At `streams` at a time: milliseconds for an answer, tokens a second of all together."""

    streams: int
    milliseconds: float
    rate: float


def draw(title: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """The SVG. Both axes are logarithmic: doubling the streams is the same step wherever it is made."""
    points = [point for line in lines.values() for point in line if point.milliseconds > 0 and point.rate > 0]
    across, up = _ticks([p.milliseconds for p in points]), _ticks([p.rate for p in points])
    drawn = "".join(
        _line(name, [(_x(p.milliseconds, across), _y(p.rate, up), p.streams) for p in line if p in points], index)
        for index, (name, line) in enumerate(lines.items())
    )
    return page(WIDTH, HEIGHT, title, _axes(across, up) + drawn)


def _line(name: str, places: Sequence[tuple[float, float, int]], index: int) -> str:
    colour = COLOURS[index % len(COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    drawn = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y, streams in places:
        drawn += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' + text(x + 6, y - 6, str(streams))
    at = LEFT + index * (WIDTH - LEFT - RIGHT) / len(COLOURS)
    return drawn + f'<rect x="{at:.1f}" y="34" width="11" height="11" fill="{colour}"/>' + text(at + 16, 44, name)


def _axes(across: Sequence[float], up: Sequence[float]) -> str:
    drawn = ""
    for value in across:
        x = _x(value, across)
        drawn += _rule(x, TOP, x, HEIGHT - BOTTOM) + text(x, HEIGHT - BOTTOM + 16, _number(value), anchor="middle")
    for value in up:
        y = _y(value, up)
        drawn += _rule(LEFT, y, WIDTH - RIGHT, y) + text(LEFT - 6, y + 4, _number(value), anchor="end")
    labels = text(WIDTH - RIGHT, HEIGHT - 10, "ms for an answer, median", anchor="end")
    return drawn + labels + text(LEFT, HEIGHT - 10, "up: tokens/s; beside a point: streams at a time")


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten around all values, two at the least."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    steps = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
    begin = max(index for index, step in enumerate(steps) if step <= low * 1.000001)
    end = min(index for index, step in enumerate(steps) if step >= high and index > begin)
    return steps[begin : end + 1]


def _x(value: float, ticks: Sequence[float]) -> float:
    return LEFT + _share(value, ticks) * (WIDTH - LEFT - RIGHT)


def _y(value: float, ticks: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - _share(value, ticks) * (HEIGHT - TOP - BOTTOM)


def _share(value: float, ticks: Sequence[float]) -> float:
    low, high = math.log(ticks[0]), math.log(ticks[-1])
    return (math.log(value) - low) / (high - low)


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e2e8f0"/>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.2g}"
