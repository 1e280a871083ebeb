"""How often is a version that is no worse taken back, and how soon is one that is worse?

    python -m benchmarks.rollouts [--lives N] [--seed N]

Simulated rollouts of five steps with the rules and the chance of a false alarm that serve, looked at ten times a step.
Equal versions: with users who are all alike, with users each of whom is slow or fast in all answers (of whom five count
each, as it serves, or fifty), and while the load makes both versions three times as slow and back. Beside it what is
often done: a t-test of the time to the first token at 1 %, looked at as often. Then versions that are slower or fail:
answers of theirs until they are taken back, looked at after every five, and users who met them until then. Writes
results/rollouts.json and rollouts.svg.
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.record import RESULTS, write
from cluster import svg
from pipelines.routing.evidence import Arm, Sketch
from pipelines.routing.verdict import ALPHA, State, guards, judge

STEPS, LOOKS = 5, 10
EACH = 20  # answers of the new version between two looks
BESIDE = 5  # times as many of the old one, at least
RULES = guards(0.2)
NAIVE_Z = 2.326  # one-sided 1 %


@dataclass(frozen=True)
class World:
    """How answers come about: spread of a user's and of an answer's logarithm, answers a user, waves of the load."""

    name: str
    user_spread: float = 0.0
    answers_a_user: int = 5
    wave: float = 1.0


WORLDS = (
    World("users alike"),
    World("users differ, 5 answers count of each", user_spread=0.5),
    World("users differ, 50 answers count of each", user_spread=0.5, answers_a_user=50),
    World("load rises threefold and falls", wave=3.0),
)


class Version:
    """Draws answers of one version: a time to the first token, a time between tokens, whether it failed."""

    def __init__(self, dice: random.Random, world: World, slower: float = 1.0, failing: float = 0.005) -> None:
        self._dice, self._world, self._slower, self._failing = dice, world, slower, failing
        self._left, self._user = 0, 1.0
        self.users = 0

    def answers(self, count: int, load: float) -> tuple[Arm, list[float]]:
        """So many as an arm, and the logarithms of their times to the first token."""
        waits, errors = [], 0
        for _ in range(count):
            if self._left == 0:
                self._left, self.users = self._world.answers_a_user, self.users + 1
                self._user = self._dice.lognormvariate(0, self._world.user_spread)
            self._left -= 1
            if self._dice.random() < self._failing:
                errors += 1
            else:
                waits.append(0.1 * load * self._slower * self._user * self._dice.lognormvariate(0, 0.5))
        gaps = [wait / 10 * self._dice.lognormvariate(0, 0.2) for wait in waits]
        wholes = [wait + 50 * gap for wait, gap in zip(waits, gaps, strict=True)]
        arm = Arm(count, errors, latency=Sketch.of(*wholes), ttft=Sketch.of(*waits), itl=Sketch.of(*gaps))
        return arm, [math.log(wait) for wait in waits]


def life(seed: int, world: World, slower: float = 1.0, failing: float = 0.005) -> tuple[int | None, int | None, int]:
    """One rollout: after how many looks it is taken back, by us and by the t-test, and users who met it until then."""
    dice = random.Random(seed)
    new, old = Version(dice, world, slower, failing), Version(dice, world)
    ours = naive = None
    met = 0
    for step in range(STEPS):
        one, two = Arm(), Arm()
        ones: list[float] = []
        twos: list[float] = []
        for look in range(LOOKS):
            load = 1.0 + (world.wave - 1.0) * math.sin(math.pi * (look + 0.5) / LOOKS)
            (arm, waits), (beside, others) = new.answers(EACH, load), old.answers(BESIDE * EACH, load)
            one, two = one + arm, two + beside
            ones += waits
            twos += others
            at = step * LOOKS + look + 1
            if ours is None and any(each.state is State.BROKEN for each in judge(RULES, one, two, ALPHA / STEPS)):
                ours, met = at, new.users
            if naive is None and tested(ones, twos) > NAIVE_Z:
                naive = at
    return ours, naive, met


def tested(ones: list[float], twos: list[float]) -> float:
    """How many standard errors the first mean lies above the second."""
    if len(ones) < 3:
        return 0.0
    spread = math.sqrt(statistics.variance(ones) / len(ones) + statistics.variance(twos) / len(twos))
    return (statistics.fmean(ones) - statistics.fmean(twos)) / spread


def soon(seed: int, slower: float, failing: float) -> tuple[int, int]:
    """Answers of a bad version until it is taken back, looked at after each five; and users who gave them."""
    dice = random.Random(seed)
    world = WORLDS[1]
    new, old = Version(dice, world, slower, failing), Version(dice, world)
    one, two = Arm(), old.answers(500, 1.0)[0]
    while one.answers < 3_000:
        one += new.answers(5, 1.0)[0]
        two += old.answers(25, 1.0)[0]
        if any(each.state is State.BROKEN for each in judge(RULES, one, two, ALPHA / STEPS)):
            break
    return one.answers, new.users


def alarms(lives: int, seed: int) -> list[dict[str, object]]:
    """Of equal versions: how many were taken back by which look."""
    rows = []
    for world in WORLDS:
        ends = [life(seed + number, world) for number in range(lives)]
        row: dict[str, object] = {"world": world.name, "lives": lives}
        for place, name in enumerate(("ours", "t_test")):
            found = [end[place] for end in ends if end[place] is not None]
            row[name] = len(found) / lives
            row[f"{name}_by_look"] = [sum(at <= look for at in found) / lives for look in range(1, STEPS * LOOKS + 1)]
        rows.append(row)
        print(f"{world.name:<42} taken back: {row['ours']:7.2%}   by the t-test: {row['t_test']:7.2%}", flush=True)
    return rows


def delays(lives: int, seed: int) -> list[dict[str, object]]:
    """Of worse versions: answers until they were taken back."""
    rows = []
    kinds: list[tuple[str, float, float]] = [(f"{factor:g} times as slow", factor, 0.005) for factor in (1.5, 2, 3, 5)]
    kinds += [(f"{share:.0%} fail", 1.0, share) for share in (0.05, 0.2, 0.5, 1.0)]
    for name, slower, failing in kinds:
        found = [soon(seed + number, slower, failing) for number in range(lives)]
        answers = sorted(answers for answers, _ in found)
        row = {
            "kind": name,
            "answers_median": answers[len(answers) // 2],
            "answers_p90": answers[int(len(answers) * 0.9)],
            "users_median": sorted(users for _, users in found)[len(found) // 2],
        }
        rows.append(row)
        print(
            f"{name:<20} answers {row['answers_median']:>5} (90 %: {row['answers_p90']}), users {row['users_median']}"
        )
    return rows


def picture(false: list[dict[str, object]], late: list[dict[str, object]]) -> str:
    """Left: equal versions taken back by look, both ways. Right: answers until a worse one is."""
    left, top, width, height = 60.0, 70.0, 380.0, 260.0
    most = max(0.05, *(max(row["t_test_by_look"]) for row in false))  # type: ignore[arg-type, type-var]

    def line(values: list[float], color: str) -> str:
        points = " ".join(
            f"{left + width * (place + 1) / len(values):.1f},{top + height * (1 - value / most):.1f}"
            for place, value in enumerate(values)
        )
        return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'

    drawn = [
        svg.text(left, top - 22, "equal versions taken back, by look: intervals for all times (blue), t-test (red)")
    ]
    for row in false:
        drawn += [line(row["t_test_by_look"], "#c2410c"), line(row["ours_by_look"], "#1668c1")]  # type: ignore[arg-type]
    rule = top + height * (1 - ALPHA / most)
    drawn.append(
        f'<line x1="{left}" y1="{rule:.1f}" x2="{left + width}" y2="{rule:.1f}" stroke="#999" stroke-dasharray="4"/>'
    )
    drawn.append(svg.text(left + width, rule - 4, f"stated: {ALPHA:.0%}", "end", 11))
    for share in (0.0, most / 2, most):
        drawn.append(svg.text(left - 6, top + height * (1 - share / most) + 4, f"{share:.0%}", "end", 11))
    drawn.append(svg.text(left + width, top + height + 18, f"{STEPS * LOOKS} looks", "end", 11))
    right = left + width + 190
    longest = max(float(row["answers_p90"]) for row in late)  # type: ignore[arg-type]
    at: Callable[[object], float] = lambda value: 260.0 * math.log10(max(1.0, float(value))) / math.log10(longest)  # type: ignore[arg-type]  # noqa: E731
    drawn.append(svg.text(right, top - 22, "answers until a worse version is taken back"))
    for place, row in enumerate(late):
        y = top + 8 + place * 32
        drawn.append(f'<rect x="{right}" y="{y}" width="{at(row["answers_p90"]):.1f}" height="14" fill="#bfdbfe"/>')
        drawn.append(f'<rect x="{right}" y="{y}" width="{at(row["answers_median"]):.1f}" height="14" fill="#1668c1"/>')
        drawn.append(svg.text(right - 8, y + 11, str(row["kind"]), "end", 11))
        drawn.append(
            svg.text(
                right + at(row["answers_p90"]) + 6, y + 11, f"{row['answers_median']} to {row['answers_p90']}", size=11
            )
        )
    return svg.page(right + 340, top + height + 40, "Rollouts, simulated", "".join(drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lives", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    false = alarms(options.lives, options.seed)
    late = delays(max(20, options.lives // 4), options.seed)
    (RESULTS / "rollouts.svg").write_text(picture(false, late))
    result = {"question": __doc__.splitlines()[0], **vars(options), "stated": ALPHA, "equal": false, "worse": late}
    print(f"kept in {write('rollouts', result)}")


if __name__ == "__main__":
    main()
