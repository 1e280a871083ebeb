"""Texts that people write of versions: messages, titles, comments. How long they may be, and of which characters.

Knows characters. Knows no versions.
"""

import unicodedata

from cluster.errors import InvalidRequest

MOST = 10_000  # letters


def checked(field: str, text: str) -> str:
    """`text` if it may be kept. Raises InvalidRequest."""
    if len(text) > MOST:
        raise InvalidRequest(field, text, f"keep it below {MOST} letters")
    if any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in text):
        raise InvalidRequest(field, text, "take control characters out of it; lines may end with a line feed")
    return text
