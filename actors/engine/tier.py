"""A second tier below the KV cache: which place of it holds which block's contents, and whether fetching them pays.

Knows digests, places and seconds. Knows nothing of files, tensors or sequences: the ranks copy what is decided here.
"""

from collections import OrderedDict
from collections.abc import Iterable

_LEARN = 0.2
_FORGIVE = 0.98  # with every fetch refused: what was slow once is tried again some day


def places_in(gigabytes: float, bytes_per_token: int, block_tokens: int) -> int:
    """How many blocks find a place in so much, on a rank with so many bytes of cache a token."""
    return int(gigabytes * 1e9 / (bytes_per_token * block_tokens))


class Tier:
    """`places` for blocks, the least recently used of which is given to the next."""

    def __init__(self, places: int) -> None:
        self._block_seconds: float | None = None  # to fetch one, as measured
        self._token_seconds: float | None = None  # to compute one of a prompt
        self._free = list(range(places - 1, -1, -1))
        self._place_of: OrderedDict[bytes, int] = OrderedDict()
        self._read: set[int] = set()  # places that the plan under way reads

    def keep(self, digest: bytes) -> int | None:
        """Where a block's contents are to be copied to; None if they lie there already or no place is to be had."""
        if digest in self._place_of:
            self._place_of.move_to_end(digest)
            return None
        if self._free:
            place = self._free.pop()
        else:
            oldest = next((known for known, at in self._place_of.items() if at not in self._read), None)
            if oldest is None:
                return None
            place = self._place_of.pop(oldest)
        self._place_of[digest] = place
        return place

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """The places of as many of `digests`, from the first on, as lie here one after the other."""
        found = []
        for digest in digests:
            place = self._place_of.get(digest)
            if place is None:
                break
            found.append(place)
        return found

    def read(self, digests: Iterable[bytes]) -> None:
        """The plan under way reads these: until `planned` their places are nobody else's."""
        for digest in digests:
            self._place_of.move_to_end(digest)
            self._read.add(self._place_of[digest])

    def forget(self, digest: bytes) -> None:
        """What lies here of it is doubtful."""
        place = self._place_of.pop(digest, None)
        if place is not None:
            self._free.append(place)

    def planned(self) -> None:
        """The plan is made; what it reads it reads before a later one writes."""
        self._read.clear()

    def lost(self, places: Iterable[int]) -> None:
        """These hold nothing that can be read."""
        gone = set(places)
        for digest in [known for known, place in self._place_of.items() if place in gone] if gone else ():
            self.forget(digest)

    def clear(self) -> None:
        """Forget all contents, which have become doubtful."""
        self._free += self._place_of.values()
        self._place_of.clear()
        self._read.clear()

    @property
    def block_seconds(self) -> float | None:
        """What it takes to fetch a block; None if none was."""
        return self._block_seconds

    def fetched(self, blocks: int, took: float) -> None:
        """So many blocks came back in `took` seconds."""
        self._block_seconds = _moved(self._block_seconds, took / blocks)

    def computed(self, tokens: int, took: float) -> None:
        """So many tokens of prompts were computed in `took` seconds."""
        self._token_seconds = _moved(self._token_seconds, took / tokens)

    def pays(self, blocks: int, tokens: int) -> bool:
        """Whether to fetch `blocks` in place of computing their `tokens`. What was never measured is tried."""
        if self._block_seconds is None or self._token_seconds is None:
            return True
        return blocks * self._block_seconds < tokens * self._token_seconds

    def passed(self) -> None:
        """Somebody computed what could have been fetched: what a fetch takes was measured a while ago."""
        if self._block_seconds is not None:
            self._block_seconds *= _FORGIVE


def _moved(known: float | None, now: float) -> float:
    return now if known is None else known + _LEARN * (now - known)
