"""`strata chaos`: faults on the running stack while clients ask, and a report of what they saw.

Owns the flags, the table and where the report goes. What happens stands in `pipelines.chaos`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import runtime
from cluster.errors import InvalidRequest, Unavailable
from pipelines.cli import keys, serving, show
from pipelines.cli.config import settle


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags. `out` is a name without an ending: `.json` and `.svg` are written."""

    faults: int
    minutes: float
    streams: int
    rate: float
    seed: int
    budget: int
    spare: int
    kinds: tuple[str, ...]
    out: Path
    model: str | None = None


def run(file: Path | None, asked: Asked, *, as_json: bool) -> None:
    """Strike, report. Raises Unavailable, after the report, where an answer was bad or something was left behind."""
    if not asked.out.absolute().parent.is_dir():
        raise InvalidRequest("out", str(asked.out), "a name in a folder that exists")
    from pipelines.chaos.faults import HARMLESS, STORE, named  # noqa: PLC0415 - `--help` needs none of it
    from pipelines.chaos.picture import draw  # noqa: PLC0415
    from pipelines.chaos.run import Run, Wanted  # noqa: PLC0415
    from pipelines.chaos.stage import Stage  # noqa: PLC0415
    from pipelines.chaos.story import summary  # noqa: PLC0415

    kinds = named(asked.kinds or HARMLESS)
    settings = settle(file).settings
    runtime.join(settings.cluster)
    key = keys.mine(settings.cluster)
    if settings.cluster.address != "local":
        kinds = tuple(kind for kind in kinds if kind.role != STORE)
    wanted = Wanted(
        kinds, asked.faults, asked.minutes, asked.streams, asked.rate, asked.seed, asked.budget, asked.spare
    )
    model = asked.model or settings.models[0].name
    stage = Stage(settings.cluster, lambda: tuple(serving.gangs()), Gauge(settings.cluster.url, key))
    story = Run(stage, settings.cluster.url, key, model, wanted, show.progress).go()
    runtime.disconnect()
    found = summary(story)
    title = f"{len(story.faults)} faults under {asked.streams} streams and {asked.rate:g} requests/s, seed {asked.seed}"
    asked.out.with_suffix(".svg").write_text(draw(story, title), encoding="utf-8")
    asked.out.with_suffix(".json").write_text(json.dumps({**found, "bad": told(story.bad)}, indent=2) + "\n")
    if as_json:
        show.document(found)
    else:
        tell(found, asked.out)
    if story.bad or story.leaks or story.stopped:
        raise Unavailable(model, story.stopped or f"{len(story.bad)} bad answers, {len(story.leaks)} leaks")


def told(bad: Any) -> list[dict[str, Any]]:
    """What a bad answer was, for whoever looks for the reason."""
    return [{"name": each.name, "at": round(each.ended, 2), "verdict": each.verdict, "why": each.why} for each in bad]


def tell(found: dict[str, Any], out: Path) -> None:
    """The figures for a person."""
    show.table(
        ("faults", "streams", "plain", "failed", "cut", "wrong", "usage wrong", "came again"),
        [[found[name] for name in ("faults", "streams", "plain", "failed", "cut", "wrong", "usage", "refused")]],
    )
    rows = [("all", found["pause"]), *found["pause_by_kind"].items()]
    shown = [(name, one["count"], one["p50"], one["p99"], one["most"]) for name, one in rows]
    show.table(("pause after", "streams open", "p50 s", "p99 s", "longest s"), shown)
    for leak in found["leaks"]:
        show.line(f"[red]left behind[/]: {leak}")
    show.line(f"Written: {out.with_suffix('.json')}, {out.with_suffix('.svg')}.")


class Gauge:
    """A metric's sum over its labels, as the gateway tells it."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def __call__(self, name: str) -> float:
        """Raises Unavailable where the gateway does not answer."""
        import httpx  # noqa: PLC0415 - only where it is asked

        headers = {"authorization": f"Bearer {self._key}"}
        try:
            text = httpx.get(f"{self._url}/metrics", headers=headers, timeout=30.0, trust_env=False).text
        except httpx.HTTPError as wrong:
            raise Unavailable(self._url, f"no metrics: {wrong}") from None
        return total(text, name)


def total(text: str, name: str) -> float:
    """The sum of a metric's rows in Prometheus' text."""
    return sum(float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith((name + " ", name + "{")))
