"""What steps take by the number of their rows, as measured.

Knows times. Knows nothing of what is computed.
"""

from dataclasses import dataclass, field

_LEARN = 0.2
_SLOPE = 0.03  # what one more row is thought to cost until that was measured, as a share of one row
_STALE = 400  # steps without a trial after which what trials took is doubted most
_DOUBT = 0.5


@dataclass(slots=True)
class Costs:
    """What a step takes by the number of its rows; `unknown` until anything was measured.

    A step of more rows than there need be is a trial. What trials took may have been of a bad moment, so the longer
    there was none, the less it counts: one is made again where it would pay, and then believed the more.
    """

    unknown: float = 1.0
    seconds: dict[int, float] = field(default_factory=dict)
    plain: int = 0  # rows of the last step that was no trial
    idle: int = 0  # steps since the last trial

    def learn(self, rows: int, took: float, trial: bool = False) -> None:
        """A step of `rows` rows took `took` seconds."""
        key = rounded(rows)
        known = self.seconds.get(key)
        if known is not None:
            now = known + (max(_LEARN, min(1.0, self.idle / _STALE)) if trial else _LEARN) * (took - known)
        else:  # the first of its kind is often slow for another reason, and might be the last
            now = min(took, (took + self.of(rows)) / 2) if self.seconds else took
        self.seconds[key] = now
        self.plain, self.idle = (self.plain, 0) if trial else (key, self.idle + 1)
        for fewer, seconds in self.seconds.items():
            if fewer < key and seconds > now:
                self.seconds[fewer] = now  # measured at a bad moment: more rows took less

    def of(self, rows: int) -> float:
        """Seconds of such a step: measured, or a line through what was."""
        key = rounded(rows)
        if key in self.seconds:
            return self._now(key)
        below = max((known for known in self.seconds if known < rows), default=None)
        above = min((known for known in self.seconds if known > rows), default=None)
        if below is None:
            return self.unknown if above is None else self._now(above)
        if above is None:
            return self._now(below) + self._slope(below) * (rows - below)
        share = (rows - below) / (above - below)
        return self._now(below) + share * max(0.0, self._now(above) - self._now(below))

    @property
    def trust(self) -> float:
        """In what trials took."""
        return 1.0 - _DOUBT * min(1.0, self.idle / _STALE)

    def _now(self, key: int) -> float:
        if key <= self.plain:
            return self.seconds[key]
        return max(self.seconds[key] * self.trust, self.seconds.get(self.plain, 0.0))

    def _slope(self, below: int) -> float:
        """Seconds of one row more than `below`, the most that were measured."""
        least, most = min(self.seconds), self.seconds[below]
        if below < 2 * least:
            return most * _SLOPE
        return max(0.0, min(most - self.seconds[least], most * (1.0 - least / below))) / (below - least)


def rounded(rows: int) -> int:
    """Rows that are measured as one, up to a quarter more: each number on its own would be learnt too slowly."""
    step = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // step) * step
