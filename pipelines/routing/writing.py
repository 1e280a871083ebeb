"""In which writing most of a text is, as far as that tells a language.

Knows ranges of Unicode. Knows nothing of words: French and English are both `latin`.
"""

from bisect import bisect_right
from collections import Counter

from pipelines.routing.settings import Language

LOOK = 2_000  # characters that are looked at

# Unicode 16, Blocks.txt: where letters of a writing begin, and end.
RANGES: tuple[tuple[int, int, Language], ...] = (
    (0x0041, 0x005A, "latin"), (0x0061, 0x007A, "latin"), (0x00C0, 0x024F, "latin"),
    (0x0370, 0x03FF, "greek"), (0x0400, 0x052F, "cyrillic"), (0x0590, 0x05FF, "hebrew"),
    (0x0600, 0x06FF, "arabic"), (0x0750, 0x077F, "arabic"), (0x0900, 0x097F, "devanagari"),
    (0x0E00, 0x0E7F, "thai"), (0x1100, 0x11FF, "korean"), (0x1E00, 0x1EFF, "latin"),
    (0x3040, 0x30FF, "japanese"), (0x3400, 0x4DBF, "chinese"), (0x4E00, 0x9FFF, "chinese"),
    (0xAC00, 0xD7AF, "korean"), (0x20000, 0x323AF, "chinese"),
)  # fmt: skip
_BEGINS = [begin for begin, _, _ in RANGES]
_IDEOGRAPHS = 3  # letters of Latin that say as much as one of these


def writing(text: str) -> Language | None:
    """The writing of most of its beginning; None where there are no letters. Japanese is what has kana."""
    counts: Counter[Language] = Counter()
    for letter in text[:LOOK]:
        place = bisect_right(_BEGINS, ord(letter)) - 1
        if place >= 0 and ord(letter) <= RANGES[place][1]:
            counts[RANGES[place][2]] += 1
    if counts["japanese"] * 10 >= counts["chinese"]:  # a text in Japanese is half kana, a Chinese one names none
        counts["japanese"] += counts.pop("chinese", 0) if counts["japanese"] else 0
    for dense in ("chinese", "japanese", "korean"):
        counts[dense] *= _IDEOGRAPHS
    found, most = max(counts.items(), key=lambda each: each[1])
    return found if most else None
