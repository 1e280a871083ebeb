"""A run on one line of time, as a small SVG by hand: what streams brought, when faults came, what pauses there were.

Knows a story. Needs no plotting library.
"""

from cluster.svg import page, text
from pipelines.chaos.faults import KINDS
from pipelines.chaos.story import BUCKET_SECONDS, Story

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, MIDDLE, BOTTOM = 60, 20, 70, 270, 40
COLOURS = dict(zip(KINDS, ("#dc2626", "#f59e0b", "#7c3aed", "#0891b2", "#059669", "#64748b", "#111827"), strict=True))
SHOWN_SECONDS = 0.2  # shorter pauses are not drawn


def draw(story: Story, title: str) -> str:
    """The SVG: throughput above, pauses of streams below, a rule for each fault through both."""
    return page(
        WIDTH, HEIGHT, title, _legend(story) + _faults(story) + _throughput(story) + _pauses(story) + _axis(story)
    )


def _x(at: float, story: Story) -> float:
    return LEFT + at / max(story.seconds, 1.0) * (WIDTH - LEFT - RIGHT)


def _legend(story: Story) -> str:
    drawn, x = "", float(LEFT)
    for kind in sorted({fault.kind for fault in story.faults}):
        drawn += f'<rect x="{x:.0f}" y="34" width="10" height="10" fill="{COLOURS[kind]}"/>' + text(x + 14, 43, kind)
        x += 118
    return drawn


def _faults(story: Story) -> str:
    return "".join(
        f'<line x1="{_x(fault.at, story):.1f}" y1="{TOP - 14}" x2="{_x(fault.at, story):.1f}" y2="{HEIGHT - BOTTOM}" '
        f'stroke="{COLOURS[fault.kind]}" stroke-opacity="0.5"/>'
        for fault in story.faults
    )


def _throughput(story: Story) -> str:
    most = max(story.characters.values(), default=1)
    height = MIDDLE - TOP - 20
    points = " ".join(
        f"{_x(bucket * BUCKET_SECONDS, story):.1f},{MIDDLE - 20 - story.characters[bucket] / most * height:.1f}"
        for bucket in range(int(story.seconds / BUCKET_SECONDS) + 1)
    )
    line = f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="1.5"/>'
    return line + text(LEFT - 6, TOP + 4, f"{most / BUCKET_SECONDS:,.0f}", "end") + text(LEFT, TOP - 4, "characters/s")


def _pauses(story: Story) -> str:
    """A dash from a pause's beginning to its end, as high as it is long."""
    gaps = [gap for record in story.records if record.streams for gap in record.gaps if gap[1] >= SHOWN_SECONDS]
    most = max((long for _, long in gaps), default=1.0)
    floor, height = HEIGHT - BOTTOM, HEIGHT - BOTTOM - MIDDLE - 16
    drawn = "".join(
        f'<line x1="{_x(begun, story):.1f}" y1="{floor - long / most * height:.1f}" '
        f'x2="{_x(begun + long, story):.1f}" y2="{floor - long / most * height:.1f}" stroke="#111827"/>'
        for begun, long in gaps
    )
    bad = "".join(
        f'<circle cx="{_x(record.ended, story):.1f}" cy="{floor - 4}" r="4" fill="#dc2626"/>' for record in story.bad
    )
    words = text(LEFT - 6, MIDDLE + 20, f"{most:.1f} s", "end")
    return drawn + bad + words + text(LEFT, MIDDLE + 4, "pauses of streams; red: a bad answer")


def _axis(story: Story) -> str:
    floor = HEIGHT - BOTTOM
    rule = f'<line x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}" stroke="#94a3b8"/>'
    ticks = range(0, int(story.seconds) + 1, max(1, round(story.seconds / 8)))
    return rule + "".join(text(_x(at, story), floor + 16, f"{at} s", "middle") for at in ticks)
