"""How many sequences are worth running at once: more of them make each other slower, and at some point hardly more.

A step that decodes reads the weights once for all, so the first few more cost next to nothing; beyond, each costs its
own arithmetic. What steps took that only decode is kept by how many they decoded, in powers of two, and between two of
these thought linear. Knows counts and seconds. Knows nothing of sequences or clocks.
"""

_UNSEEN_SECONDS = 0.001  # a step that is shorter is never too long: nobody reads a thousand tokens a second
_FEWEST = 8  # that always run at once: what a step costs is measured on a machine that does other things, too
_LEARN_SLOWER, _LEARN_FASTER = 0.05, 0.5  # whatever else runs on the machine makes a step slower, never faster


class Worth:
    """Of at most `most`, so many that a step lasts at most `stretch` times what it lasts for one; None: all."""

    def __init__(self, most: int, stretch: float | None) -> None:
        self._most, self._stretch = most, stretch
        self._seen: dict[int, tuple[float, float]] = {}  # by power of two: how many decoded, and seconds of a step
        self.places = most

    def learn(self, decodes: int, seconds: float) -> None:
        """A step that did nothing else took so long."""
        if self._stretch is None:
            return
        power = (decodes - 1).bit_length()
        count, took = self._seen.get(power, (float(decodes), seconds))
        share = _LEARN_FASTER if seconds < took else _LEARN_SLOWER
        self._seen[power] = count + share * (decodes - count), took + share * (seconds - took)
        self.places = min(self._most, max(_FEWEST, int(self._worth(self._stretch))))

    @property
    def steps(self) -> dict[int, float]:
        """How long steps last by how many they decode, in milliseconds."""
        return {round(count): round(1e3 * seconds, 3) for _, (count, seconds) in sorted(self._seen.items())}

    def _worth(self, stretch: float) -> float:
        """Before anything with more was measured, as many as there may be: that is how it comes to be."""
        (below, _), *more = (self._seen[power] for power in sorted(self._seen))
        took = min(seconds for _, seconds in self._seen.values())  # of one: it lasts no longer than that of several
        longest = max(stretch * took, _UNSEEN_SECONDS)
        for count, measured in more:
            seconds = min(max(took, measured), took * count / below)  # no more than one after the other: that was noise
            if seconds > longest:
                return below + (count - below) * (longest - took) / (seconds - took)
            below, took = count, seconds
        return self._most


def rungs(most: int) -> list[int]:
    """How many to run at once, one after the other, to learn what that is worth: 1, 2, 4 and so on, and `most`."""
    return [*(1 << power for power in range((most - 1).bit_length())), most]
