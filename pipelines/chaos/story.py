"""What happened: requests and faults on one clock, and the figures that sum them up.

Knows records. Knows nothing of how they came about.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.bench.figures import percentile
from pipelines.chaos.asks import OK

NOTED_SECONDS = 0.05  # a shorter pause between two events of a stream is none
SHADOW_SECONDS = 60.0  # a pause that begins later than this after a fault is not the fault's
BUCKET_SECONDS = 1.0


@dataclass(slots=True)
class Record:
    """One request. `gaps` are pauses of a stream: when each began and how long it was."""

    name: str
    streams: bool
    began: float
    ended: float = 0.0
    verdict: str = OK
    why: str = ""
    gaps: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault: what it was, when, and whom it befell."""

    kind: str
    at: float
    pid: int
    gangs: tuple[str, ...] = ()


@dataclass(slots=True)
class Story:
    """All of one run, on a clock that begins with it."""

    records: list[Record] = field(default_factory=list)
    faults: list[Struck] = field(default_factory=list)
    characters: Counter[int] = field(default_factory=Counter)  # of streams, by bucket of a second
    leaks: list[str] = field(default_factory=list)
    refused: int = 0  # times that a request was told to come again
    stopped: str = ""  # why it ended before its time
    seconds: float = 0.0

    def heard(self, at: float, characters: int) -> None:
        """So much of a stream came."""
        self.characters[int(at / BUCKET_SECONDS)] += characters

    @property
    def bad(self) -> list[Record]:
        """Requests that a client would complain of."""
        return [record for record in self.records if record.verdict != OK]


def pauses(story: Story, kind: str | None = None) -> list[float]:
    """The longest pause of each stream that was open at a fault, until the next one or its end; 0 for none."""
    found = []
    times = [fault.at for fault in story.faults] + [story.seconds]
    for index, fault in enumerate(story.faults):
        if kind is not None and fault.kind != kind:
            continue
        until = min(times[index + 1], fault.at + SHADOW_SECONDS)
        for record in story.records:
            if record.streams and record.began < fault.at < record.ended:
                during = [long for begun, long in record.gaps if begun + long > fault.at and begun < until]
                found.append(max(during, default=0.0))
    return found


def summary(story: Story) -> dict[str, Any]:
    """The figures, as the JSON report has them. Seconds unless said otherwise."""
    verdicts = Counter(record.verdict for record in story.records)
    return {
        "seconds": round(story.seconds, 1),
        "faults": len(story.faults),
        "kinds": dict(sorted(Counter(fault.kind for fault in story.faults).items())),
        "streams": sum(record.streams for record in story.records),
        "plain": sum(not record.streams for record in story.records),
        **{name: verdicts[name] for name in ("failed", "cut", "wrong", "usage")},
        "refused": story.refused,
        "pause": _spread(pauses(story)),
        "pause_by_kind": {
            kind: _spread(pauses(story, kind)) for kind in sorted({fault.kind for fault in story.faults})
        },
        "plain_answer": _spread([record.ended - record.began for record in story.records if not record.streams]),
        "leaks": story.leaks,
        "stopped": story.stopped,
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    spread = {"p50": percentile(seconds, 50), "p99": percentile(seconds, 99), "most": max(seconds, default=0.0)}
    return {"count": len(seconds)} | {name: round(value, 3) for name, value in spread.items()}


def lost(before: "Counter[str]", after: "Counter[str]") -> list[str]:
    """What there is more or less of than before, one sentence each."""
    return [
        f"{name}: {before[name]} before, {after[name]} after"
        for name in sorted(before | after)
        if before[name] != after[name]
    ]
