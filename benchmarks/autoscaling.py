"""Does the number of gangs follow a day's load, and what do clients wait meanwhile?

    python -m benchmarks.autoscaling [--days N] [--start-seconds N] [--seed N]

A simulated day: quiet nights, a steep morning, a lunch break, an evening peak, two sudden bursts and an hour in which
reports come late. A gang serves some requests at a time and takes a minute to start. The decision is the one that
serves (`cluster/scheduling/scaling.py`), every 5 seconds. Against the fewest gangs that would have kept every wait
below the target, known afterwards, and against as many as the peak needs all day. Writes results/autoscaling.json and
autoscaling.svg.
"""

import argparse
import itertools
import math
import random
from dataclasses import dataclass

from benchmarks.record import RESULTS, write
from cluster import svg
from cluster.scheduling.scaling import Asked, Report, Rules, Seen, decide, remembered

LOOK = 5.0  # seconds from one decision to the next
PLACES, SERVICE = 32, 6.0  # sequences that a gang runs at a time, seconds that each takes
CAPACITY = PLACES / SERVICE  # requests per second of a gang
RULES = Rules(least=1, most=40, wait_seconds=2.0, kv_used=None, running=0.75, down_seconds=300.0)
DAY = 86_400.0


def load_at(second: float) -> float:
    """Requests per second at a time of the day."""
    hour = second % DAY / 3600
    wave = 6 + 60 * math.exp(-(((hour - 11) / 2.2) ** 2)) + 75 * math.exp(-(((hour - 19.5) / 1.8) ** 2))
    lunch = 20 * math.exp(-(((hour - 12.7) / 0.4) ** 2))
    burst = 60 if 15.0 <= hour < 15.2 else 45 if 3.0 <= hour < 3.1 else 0
    return max(1.0, wave - lunch) + burst


@dataclass(slots=True)
class Fleet:
    """Gangs as a fluid: what comes, what is served, what waits."""

    ready: int
    start_seconds: float
    starting: list[float]  # when each is up
    backlog: float = 0.0  # requests

    def pass_time(self, now: float, coming: float) -> tuple[float, float]:
        """One look: share of places in use, and seconds that who comes now waits."""
        self.ready += sum(at <= now for at in self.starting)
        self.starting = [at for at in self.starting if at > now]
        room = self.ready * CAPACITY * LOOK
        served = min(self.backlog + coming, room)
        self.backlog += coming - served
        return (served / room if room else 1.0), (self.backlog / (self.ready * CAPACITY) if self.ready else LOOK)

    def become(self, now: float, wanted: int) -> None:
        """Start or end gangs; what starts is ended first."""
        there = self.ready + len(self.starting)
        self.starting += [now + self.start_seconds] * (wanted - there)
        for _ in range(there - wanted):
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1


def simulate(days: float, start_seconds: float, seed: int) -> list[dict[str, float]]:
    """A row for each look."""
    dice, rows = random.Random(seed), []
    asked: list[Asked] = []
    fleet = Fleet(2, start_seconds, [])
    for step in range(int(days * DAY / LOOK)):
        now = step * LOOK
        rate = load_at(now)
        coming = max(0.0, dice.gauss(rate * LOOK, math.sqrt(rate * LOOK)))
        busy, wait = fleet.pass_time(now, coming)
        age = 60.0 if 8.0 <= now % DAY / 3600 < 8.5 and step % 3 else 1.0  # half an hour in which most reports are late
        reports = [Report(age, waiting=wait, running=busy)] * fleet.ready
        decision = decide(Seen(now, reports, fleet.ready, len(fleet.starting)), RULES, asked)
        asked = remembered(asked, now, decision.asked, RULES.down_seconds)
        fleet.become(now, decision.replicas)
        rows.append({"second": now, "rate": rate, "ready": fleet.ready, "wait": wait, "requests": coming})
    return rows


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """The day in numbers. The least: every moment's load at full capacity, known beforehand."""
    requests = sum(row["requests"] for row in rows)
    late = sum(row["requests"] for row in rows if row["wait"] > 5.0)
    hours = LOOK / 3600
    used = sum(row["ready"] for row in rows) * hours
    least = sum(math.ceil(row["rate"] / CAPACITY) for row in rows) * hours
    peak = max(math.ceil(row["rate"] / CAPACITY) for row in rows) * len(rows) * hours
    changes = sum(before["ready"] != after["ready"] for before, after in itertools.pairwise(rows))
    return {
        "requests": round(requests),
        "waited_over_5_s": late / requests,
        "longest_wait_seconds": max(row["wait"] for row in rows),
        "gang_hours": used,
        "over_the_least": used / least,
        "of_the_peak_all_day": used / peak,
        "changes": changes,
    }


def picture(rows: list[dict[str, float]], title: str) -> str:
    """Load in gangs' worth, gangs that were ready, and waits, over the day."""
    left, top, width, height = 60.0, 60.0, 860.0, 300.0
    most = max(max(row["ready"], row["rate"] / CAPACITY) for row in rows) * 1.1
    every = max(1, len(rows) // 1500)

    def line(values: list[float], color: str, scale: float, base: float, tall: float) -> str:
        points = " ".join(
            f"{left + width * index / len(values):.1f},{base - tall * min(1.0, value / scale):.1f}"
            for index, value in enumerate(values)
        )
        return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'

    shown = rows[::every]
    drawn = [
        line([row["rate"] / CAPACITY for row in shown], "#bbb", most, top + height, height),
        line([row["ready"] for row in shown], "#1668c1", most, top + height, height),
        line([row["wait"] for row in shown], "#c2410c", 30.0, top + height + 90, 70),
        svg.text(left, top - 12, "gangs ready (blue), and what the load takes (grey)"),
        svg.text(left, top + height + 36, "seconds that a request waits, up to 30 (red)"),
    ]
    for count in range(0, int(most) + 1, 5):
        drawn.append(svg.text(left - 8, top + height * (1 - count / most) + 4, f"{count}", "end", 11))
    for hour in range(0, 25, 3):
        drawn.append(svg.text(left + width * hour / 24, top + height + 112, f"{hour}:00", "middle", 11))
    return svg.page(width + 100, height + 190, title, "".join(drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=1.0)
    parser.add_argument("--start-seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows = simulate(options.days, options.start_seconds, options.seed)
    found = summary(rows)
    for name, value in found.items():
        print(f"{name:<24}{value:,.3f}" if isinstance(value, float) else f"{name:<24}{value:,}")
    (RESULTS / "autoscaling.svg").write_text(picture(rows, "A simulated day under the autoscaler"))
    print(f"kept in {write('autoscaling', {'question': __doc__.splitlines()[0], **vars(options), **found})}")


if __name__ == "__main__":
    main()
