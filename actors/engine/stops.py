"""Find the first stop string in a text that comes in pieces.

Holds back only the longest end of the text that may still become a stop string, so that what is let go
never has to be taken back. The outcome does not depend on how the text is cut. Knuth, Morris, Pratt,
"Fast Pattern Matching in Strings", SIAM J. Comput. 6(2), 1977: one table lookup per character and string.
"""

import re
from collections.abc import Sequence
from functools import lru_cache


class StopWatch:
    """Watches one text for `stops`; the match that ends first wins, of those the longest."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _failures(stop)) for stop in stops]
        self._matched = [0] * len(self._stops)  # how much of each stop the text ends with
        self._held = ""
        self._begin = re.compile("[" + re.escape("".join({stop[0] for stop in stops})) + "]") if stops else None

    def feed(self, text: str) -> tuple[str, str | None]:
        """Take `text`: what can be let go, and the stop string if it is complete (then all before it is let go)."""
        if self._begin is None or not (self._held or self._begin.search(text)):
            return text, None
        for place, character in enumerate(text):
            found = self._step(character)
            if found is not None:
                whole = self._held + text[: place + 1]
                self._held = ""
                return whole[: len(whole) - len(found)], found
        whole = self._held + text
        cut = len(whole) - max(self._matched)
        self._held = whole[cut:]
        return whole[:cut], None

    def drain(self) -> str:
        """The text ends: what was held back, which is no stop string after all."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return held

    def _step(self, character: str) -> str | None:
        found: str | None = None
        for index, (stop, failures) in enumerate(self._stops):
            length = self._matched[index]
            while length and stop[length] != character:
                length = failures[length - 1]
            length += stop[length] == character
            self._matched[index] = length
            if length == len(stop) and (found is None or len(stop) > len(found)):
                found = stop
        return found


@lru_cache(maxsize=256)
def _failures(stop: str) -> tuple[int, ...]:
    """For each prefix of `stop` the length of its longest proper prefix that is also its end."""
    table, length = [0] * len(stop), 0
    for place in range(1, len(stop)):
        while length and stop[place] != stop[length]:
            length = table[length - 1]
        length += stop[place] == stop[length]
        table[place] = length
    return tuple(table)
