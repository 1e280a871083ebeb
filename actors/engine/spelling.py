"""What a token is in bytes, and how bytes of many tokens become text.

Reads the `decoder` of a tokenizer.json. The three that decoder-only models have (byte-level, byte
fallback, metaspace) spell every token on its own, so that a text is its tokens' bytes one after the
other; any other decoder is asked for the text of a short window of tokens instead.
"""

from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any, Protocol

UTF8 = getincrementaldecoder("utf-8")
WINDOW = 16  # tokens after which half a character is given up: no UTF-8 character has more bytes than 4
METASPACE = "▁"


class Speech(Protocol):
    """One sequence's way from tokens to text; never half a character, never a character twice."""

    def say(self, token: int) -> str:
        """The text that `token` completes."""
        ...


class Spelling:
    """The bytes of every token of one tokenizer. `backend` is a tokenizers.Tokenizer, `decoder` its JSON."""

    def __init__(self, backend: Any, decoder: dict[str, Any] | None, specials: frozenset[int]) -> None:
        self._backend = backend
        self._specials = specials
        steps = _steps(decoder)
        self._spell, self._first = _rules(steps)
        self._table: dict[int, bytes] = {}  # a vocabulary is large and a text uses little of it

    @property
    def exact(self) -> bool:
        """Whether a text is its tokens' bytes one after the other."""
        return self._spell is not None

    def bytes_of(self, token: int) -> bytes:
        """The bytes of one token, special or not; none for an id that the tokenizer lacks."""
        spelled = self._table.get(token)
        if spelled is None:
            spelled = self._table[token] = self._look_up(token)
        return spelled

    def speech(self, *, skip_special: bool, continues: bool) -> Speech:
        """A new text. One that `continues` a prompt keeps the space that its first word begins with."""
        skipped = self._specials if skip_special else frozenset()
        if self._spell is None:
            return _Window(self._backend, skipped)
        return _Bytes(self.bytes_of, skipped, _as_is if continues else self._first)

    def _look_up(self, token: int) -> bytes:
        text = self._backend.id_to_token(token)
        if text is None:
            return b""
        if self._spell is None:
            return str(self._backend.decode([token], skip_special_tokens=False)).encode()
        return self._spell(text)


class _Bytes:
    """Bytes go through an incremental UTF-8 decoder; what can never be a character becomes U+FFFD."""

    def __init__(
        self, bytes_of: Callable[[int], bytes], skipped: frozenset[int], first: Callable[[bytes], bytes]
    ) -> None:
        self._bytes_of, self._skipped = bytes_of, skipped
        self._first: Callable[[bytes], bytes] | None = None if first is _as_is else first
        self._decode = UTF8(errors="replace").decode

    def say(self, token: int) -> str:
        if token in self._skipped:
            return ""
        spelled = self._bytes_of(token)
        if self._first is not None and spelled:
            spelled, self._first = self._first(spelled), None
        return self._decode(spelled)


class _Window:
    """Decode a few tokens with and without the new ones and say the difference."""

    def __init__(self, backend: Any, skipped: frozenset[int]) -> None:
        self._backend, self._skipped = backend, skipped
        self._said: list[int] = []  # tokens whose text is out, kept because they decide about spaces
        self._new: list[int] = []

    def say(self, token: int) -> str:
        if token in self._skipped:
            return ""
        self._new.append(token)
        before = self._text(self._said)
        text = self._text(self._said + self._new)
        waiting = text.endswith("�") or len(text) <= len(before)
        if waiting and len(self._new) < WINDOW:
            return ""
        self._said, self._new = self._new, []
        return text[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        return str(self._backend.decode(tokens, skip_special_tokens=False))


def _steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder.get("type") == "Sequence":
        return [step for inner in decoder["decoders"] for step in _steps(inner)]
    return [decoder]


def _rules(steps: list[dict[str, Any]]) -> tuple[Callable[[str], bytes] | None, Callable[[bytes], bytes]]:
    """How to spell a token, and what becomes of the first one of a text; None for a decoder that is not known."""
    match [step.get("type") for step in steps]:
        case ["ByteLevel"]:
            return _byte_level, _as_is
        case ["Metaspace"]:
            mark = steps[0].get("replacement", METASPACE)
            bare = steps[0].get("prepend_scheme", "always") == "never"
            return lambda text: text.replace(mark, " ").encode(), _as_is if bare else _without_spaces
        case ["Replace", "ByteFallback", "Fuse"] if _is_metaspace(steps[0]):
            return _byte_fallback, _as_is
        case ["Replace", "ByteFallback", "Fuse", "Strip"] if _is_metaspace(steps[0]) and _is_one_space(steps[3]):
            return _byte_fallback, _without_one_space
    return None, _as_is


def _is_metaspace(step: dict[str, Any]) -> bool:
    return step.get("pattern") == {"String": METASPACE} and step.get("content") == " "


def _is_one_space(step: dict[str, Any]) -> bool:
    return (step.get("content"), step.get("start"), step.get("stop")) == (" ", 1, 0)


def _as_is(spelled: bytes) -> bytes:
    return spelled


def _without_one_space(spelled: bytes) -> bytes:
    return spelled.removeprefix(b" ")


def _without_spaces(spelled: bytes) -> bytes:
    """The metaspace decoder drops every mark of the first token, not the leading one alone."""
    return spelled.replace(b" ", b"")


def _byte_fallback(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes([int(text[3:5], 16)])
        except ValueError:
            pass
    return text.replace(METASPACE, " ").encode()


def _byte_level(text: str) -> bytes:
    """GPT-2's alphabet backwards; a token with any other character in it stands for itself."""
    found = [ALPHABET.get(character) for character in text]
    return text.encode() if None in found else bytes(byte for byte in found if byte is not None)


def _alphabet() -> dict[str, int]:
    """The character that stands for each byte: itself where it prints, else the next from U+0100.

    From `bytes_to_unicode` in OpenAI's gpt-2/src/encoder.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


ALPHABET = _alphabet()
