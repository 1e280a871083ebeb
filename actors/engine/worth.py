"""How many sequences are worth running at once: more of them make each other slower, and at some point hardly more.

A step that decodes reads the weights once for all, so the first few more cost next to nothing; beyond, each costs its
own arithmetic. What steps took that only decode is kept by how many they decoded, in powers of two, and between two of
these thought linear, as beyond: there a few more are tried than were measured. Where all places are taken for long,
what more would take is measured again: it may have been slow because of what else the machine did then. Knows counts
and seconds. Knows nothing of sequences or clocks.
"""

_UNSEEN_SECONDS = 0.001  # a step that is shorter is never too long: nobody reads a thousand tokens a second
_FEWEST = 8  # sequences that always run at once: what a step costs is measured on a machine that does other things, too
_FURTHER = 1.25  # times as many as were measured are tried next
_SURE = 8  # steps, until when the fastest counts: whatever else a machine does makes a step slower, never faster
_SLOWEST = 1.5  # times what steps took, that one more counts as: what is held up by others says no more than that
_AGAIN = 200  # steps with all places taken, after which more are tried whatever they took when they were tried last
_LEARN_SLOWER, _LEARN_FASTER = 0.05, 0.5


class Worth:
    """Of at most `most`, so many that a step lasts at most `stretch` times what it lasts for one; None: all."""

    def __init__(self, most: int, stretch: float | None) -> None:
        self._most, self._stretch = most, stretch
        self._seen: dict[int, tuple[float, float, int]] = {}  # by power of two: decoded, seconds of a step, how many
        self._full = 0  # steps with all places taken since more were tried
        self.places = most if stretch is None else min(_FEWEST, most)

    def learn(self, decodes: int, seconds: float) -> None:
        """A step that did nothing else took so long."""
        if self._stretch is None:
            return
        power = (decodes - 1).bit_length()
        count, took, steps = self._seen.get(power, (float(decodes), seconds, 0))
        if steps >= _SURE:
            seconds = min(seconds, _SLOWEST * took)
        if seconds < took and steps < _SURE:
            share = 1.0
        else:
            share = _LEARN_FASTER if seconds < took or decodes > count + 1 else _LEARN_SLOWER
        near = _LEARN_FASTER if decodes > count else _LEARN_SLOWER  # the most, as it is that which bounds
        self._seen[power] = count + near * (decodes - count), took + share * (seconds - took), steps + 1
        self._full += decodes >= self.places
        if self._full >= _AGAIN:
            self._full = 0
            self._seen = {each: seen for each, seen in self._seen.items() if each <= power}
        self.places = min(self._most, max(_FEWEST, int(self._worth(self._stretch))))

    def _worth(self, stretch: float) -> float:
        points = self._points()
        below, took = points[0]
        longest = max(stretch * took, _UNSEEN_SECONDS)
        slope = 0.0
        for count, seconds in points[1:]:
            slope = (seconds - took) / (count - below)
            if seconds > longest:
                return below + (longest - took) / slope
            below, took = count, seconds
        further = max(below + 1, _FURTHER * below)
        return min(further, below + (longest - took) / slope) if slope else further

    def _points(self) -> list[tuple[float, float]]:
        """By how many decoded: a step lasts no longer than one with more does, that was measured at a bad moment."""
        points, least = [], float("inf")
        for power in sorted(self._seen, reverse=True):
            count, seconds, _ = self._seen[power]
            least = min(least, seconds)
            points.append((count, least))
        return points[::-1]
