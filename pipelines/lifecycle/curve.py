"""The loss curve as a small SVG, written by hand: no plotting library is needed for one line."""

import json
import math
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 300, 56, 36, 24, 16
POINTS = 240


def write_curve(progress: Path, picture: Path) -> None:
    """Draw the losses of a progress file."""
    losses: dict[int, float] = {}
    for line in progress.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        losses[entry["step"]] = entry["loss"]  # a resumed run repeats some steps: the last one counts
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(draw([losses[step] for step in sorted(losses)]), encoding="utf-8")


def draw(losses: list[float]) -> str:
    """An SVG of the losses' means over short stretches, on a logarithmic scale."""
    stretch = max(1, math.ceil(len(losses) / POINTS))
    means = [sum(part) / len(part) for part in (losses[i : i + stretch] for i in range(0, len(losses), stretch))]
    logs = [math.log10(max(mean, 1e-4)) for mean in means]
    low, high = math.floor(min(logs) * 2) / 2, math.ceil(max(logs) * 2) / 2 + 1e-9

    def x(i: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * i / max(1, len(logs) - 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    path = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(logs))
    ticks = [low + 0.5 * i for i in range(round((high - low) * 2) + 1)]
    grid = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}" stroke="#ddd"/>'
        f'<text x="{LEFT - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{10**t:.3g}</text>'
        for t in ticks
    )
    foot = "".join(
        f'<text x="{x(len(logs) * part / 4 - (part == 4)):.1f}" y="{HEIGHT - 14}" text-anchor="middle">'
        f"{len(losses) * part // 4}</text>"
        for part in range(5)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="#333"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{grid}{foot}'
        f'<text x="{LEFT}" y="16">training loss of the answers, by step</text>'
        f'<polyline points="{path}" fill="none" stroke="#2563eb" stroke-width="1.8"/></svg>\n'
    )
