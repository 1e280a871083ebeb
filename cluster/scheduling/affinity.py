"""What a replica's prefix cache probably holds, as told by what was sent to it: digests of a prompt's pieces.

A guess, kept right by what the replica says of each prompt. Knows digests and their order; neither tokens nor models.
"""

from collections import OrderedDict
from collections.abc import Sequence


class Prefixes:
    """The pieces that one replica has computed, as many as it has room for; the longest unused go first."""

    def __init__(self, room: int) -> None:
        """`room`: how many pieces the replica's cache holds."""
        self._most = self._room = max(1, room)
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def matched(self, digests: Sequence[bytes]) -> int:
        """How many of the first `digests` it has; they are chained, so that a later one is only found after these."""
        return next((index for index, digest in enumerate(digests) if digest not in self._known), len(digests))

    def note(self, digests: Sequence[bytes]) -> None:
        """A sequence of these pieces was sent there. Its tail is forgotten before its head, which others share."""
        for digest in reversed(digests):
            self._known[digest] = None
            self._known.move_to_end(digest)
        self._trim()

    def told(self, found: int, expected: int) -> None:
        """The replica had `found` of the `expected` pieces of a prompt.

        Fewer: it has forgotten what was thought to be there, since others fill its cache too. Then less is believed of
        it from now on, and with every prompt that is found a little more again.
        """
        if found < expected:
            self._room = max(1, min(self._room, len(self._known)) * 9 // 10)
            self._trim()
        else:
            self._room = min(self._most, self._room + found)

    def _trim(self) -> None:
        while len(self._known) > self._room:
            self._known.popitem(last=False)
