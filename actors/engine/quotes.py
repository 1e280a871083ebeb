"""Keep special tokens that a user spells apart from those that a chat template writes.

User text is quoted before it is rendered: whole spellings go between two marks, and where a text begins or
ends like part of a spelling a third mark keeps it from growing together with its neighbour. After rendering,
what stands between the marks is plain text and every other spelling is the template's. The marks are letters
and digits that nobody outside the process can guess; templates carry them through untouched.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any


class Quotes:
    """The marks of one process for one set of special tokens."""

    def __init__(self, specials: Iterable[str]) -> None:
        texts = sorted(specials, key=lambda text: (-len(text), text))  # a longer one may hold a shorter one
        nonce = secrets.token_hex(16)
        self._open, self._close, self._cut = f"{nonce}o", f"{nonce}c", f"{nonce}x"
        self.aliases = {text: f"{nonce}a{index}z" for index, text in enumerate(texts)}
        any_special = "|".join(map(re.escape, texts)) or "(?!)"
        self._special = re.compile(any_special)
        self._rendered = re.compile(
            f"{self._open}(?P<plain>{any_special}){self._close}|(?P<control>{any_special})|{nonce}[ocx]"
        )
        self._begins = {text[:size] for text in texts for size in range(1, len(text))}
        self._ends = {text[size:] for text in texts for size in range(1, len(text))}
        self._longest = len(texts[0]) if texts else 0

    def found(self, text: str) -> str | None:
        """The first special token that `text` spells."""
        match = self._special.search(text)
        return match.group() if match else None

    def quote(self, value: Any) -> Any:
        """JSON data with every text in it quoted, keys included. The same object if there is nothing to quote."""
        if isinstance(value, str):
            return self._quote_text(value)
        if isinstance(value, Mapping):
            quoted = {self.quote(key): self.quote(inner) for key, inner in value.items()}
            return value if _same(quoted.values(), value.values()) and _same(quoted, value) else quoted
        if isinstance(value, list | tuple):
            items = [self.quote(inner) for inner in value]
            return value if _same(items, value) else items
        return value

    def settle(self, rendered: str) -> str:
        """A rendering of quoted data: the template's special tokens under their aliases, the user's plain."""
        return self._rendered.sub(self._settled, rendered)

    def _settled(self, match: re.Match[str]) -> str:
        control = match["control"]
        return self.aliases[control] if control is not None else match["plain"] or ""

    def _quote_text(self, text: str) -> str:
        quoted = self._special.sub(rf"{self._open}\g<0>{self._close}", text)
        sizes = range(1, min(self._longest, len(text) + 1))
        if any(text[:size] in self._ends for size in sizes):
            quoted = self._cut + quoted
        if any(text[-size:] in self._begins for size in sizes):
            quoted += self._cut
        return text if quoted == text else quoted


def _same(left: Iterable[Any], right: Iterable[Any]) -> bool:
    return all(one is other for one, other in zip(left, right, strict=True))
