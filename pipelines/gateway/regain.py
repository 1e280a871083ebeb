"""An answer made again for a client that has its beginning: what an event's id has to say for that, and what is left.

A token depends on its request, its seed and its position alone. So a gateway that never saw a stream goes on with it:
it computes the answer anew and leaves out what its reader has. The id says how far each choice was read, and a checksum
of its text so far: what would go on as another answer is refused. Knows parts. Knows nothing of connections.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self
from zlib import crc32

from cluster.errors import InvalidRequest
from pipelines.chat import Cut, Part, Voice

HEADER = "Last-Event-ID"
MOST = 8  # choices of an answer that ids have room for
_ID = re.compile(r"([A-Za-z0-9._\-]{1,64})-(\d{1,9})(?:~([0-9a-f.z]{1,256}))?")


def _said(tokens: int, ended: bool, check: int) -> str:
    return f".{tokens:x}{'z' if ended else ''}.{check:x}"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a reader is in a choice: the cut, and CRC-32 of the text before it."""

    cut: Cut
    check: int = 0

    def __str__(self) -> str:
        return _said(self.cut.tokens, self.cut.ended, self.check)


@dataclass(frozen=True, slots=True)
class Mark:
    """What an id says beyond its stream: `whose` is a digest of the request and who answers it."""

    seed: int
    created: int
    whose: str
    places: tuple[Place, ...]

    @classmethod
    def of(cls, seed: int, created: int, whose: str, choices: int) -> Self | None:
        """Of an answer that begins; None where it has more choices than an id has room for."""
        if choices > MOST:
            return None
        return cls(seed, created, whose, tuple(Place(Cut(0, False)) for _ in range(choices)))

    @classmethod
    def read(cls, text: str) -> Self | None:
        """From an id; None where it is not one of ours."""
        seed, created, whose, *rest = [*text.split("."), "", ""]
        counts, checks = rest[:-2:2], rest[1:-2:2]
        if not 0 < len(counts) == len(checks) <= MOST:
            return None
        with suppress(ValueError):
            places = tuple(
                Place(Cut(int(count.removesuffix("z"), 16), count.endswith("z")), int(check, 16))
                for count, check in zip(counts, checks, strict=True)
            )
            number = int(seed, 16)
            return cls(number - 2**64 if number >= 2**63 else number, int(created, 16), whose, places)
        return None

    def __str__(self) -> str:
        return f"{self.seed & 2**64 - 1:x}.{self.created:x}.{self.whose}" + "".join(map(str, self.places))

    @property
    def cuts(self) -> Mapping[int, Cut]:
        """By choice, how far each was read."""
        return {choice: place.cut for choice, place in enumerate(self.places)}


class Reader:
    """Where the reader of a stream is, as its events say it: one a few microseconds, so most of it is written once."""

    def __init__(self, mark: Mark) -> None:
        self._head = str(replace(mark, places=()))
        self._checks = [place.check for place in mark.places]
        self._places = [str(place) for place in mark.places]

    def after(self, part: Part, tokens: int) -> bytes:
        """The mark of an event that ends with `part`, up to which its choice has so many tokens."""
        choice = part.choice
        check = self._checks[choice] = crc32(part.text.encode(), self._checks[choice])
        self._places[choice] = _said(tokens, part.finish is not None, check)
        return (self._head + "".join(self._places)).encode()


@dataclass(frozen=True, slots=True)
class Last:
    """The last event that a client has. `mark` is None where the answer cannot be made again from it."""

    name: str
    number: int
    mark: Mark | None

    @classmethod
    def read(cls, text: str) -> Self:
        """From the header. Raises InvalidRequest for what was never an id of ours."""
        match = _ID.fullmatch(text)
        if match is None:
            raise InvalidRequest(HEADER, text, "send the last `id` of the stream that was cut, as it came")
        return cls(match[1], int(match[2]), Mark.read(match[3]) if match[3] else None)


def lacking(voices: Sequence[Voice], mark: Mark, had: Callable[[Part], object]) -> Callable[[Part], bool]:
    """Of an answer that is made again, cut where `mark` says, whether its reader lacks a part; the rest `had` hears.

    What it gives raises InvalidRequest as soon as it is seen to be another answer than that which the reader has the
    beginning of.
    """
    checks = dict.fromkeys(mark.cuts, 0)

    def lacks(part: Part) -> bool:
        cut, tokens = mark.cuts[part.choice], voices[part.choice].tokens
        before = tokens <= cut.tokens and (part.finish is None or cut.ended)
        if before:
            checks[part.choice] = crc32(part.text.encode(), checks[part.choice])
            had(part)
        if not before or part.finish is not None:
            same = tokens >= cut.tokens and checks[part.choice] == mark.places[part.choice].check
            if not same:
                raise InvalidRequest(HEADER, str(mark), "that answer cannot be made again; ask from the start")
        return not before

    return lacks
