"""What people search versions by: `metrics.exact_match > 0.9 and license = mit and not stage = retired`.

Words to a tree of comparisons. Knows no table: whoever asks one binds the values, none is ever part of a statement.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.condition import quantity
from cluster.errors import InvalidRequest

FIELD = "query"
FORM = "write KEY, one of = != < <= > >= ~, and a number, a word or 'a text'; join with and, or, not and brackets"
MOST_LETTERS, MOST_DEPTH = 4000, 50
_KEY = r"[A-Za-z_][A-Za-z0-9_./@-]*"
_TOKEN = re.compile(
    r"\s*(?:(?P<bracket>[()])|(?P<compare><=|>=|!=|=|<|>|~)|'(?P<text>[^']*)'|(?P<word>[^\s()'=<>!~]+))"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What stands under `key` compared with a text, or with a number; `~`: contains, whatever the case."""

    key: str
    compare: str
    value: str | float


@dataclass(frozen=True, slots=True)
class Not:
    """What `inner` does not say."""

    inner: "Query"


@dataclass(frozen=True, slots=True)
class Joined:
    """All of the `parts` with `and`, any of them with `or`."""

    word: str
    parts: tuple["Query", ...]


Query = Comparison | Not | Joined


def parse(text: str) -> Query:
    """Raises InvalidRequest with where it went wrong."""
    if len(text) > MOST_LETTERS:
        raise InvalidRequest(FIELD, f"{len(text)} letters", f"keep it below {MOST_LETTERS}")
    reader = _Reader(list(_tokens(text)), text)
    found = reader.either(0)
    reader.end()
    return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidRequest(FIELD, text[at:], FORM)
        at = match.end()
        yield str(match.lastgroup), match[str(match.lastgroup)]


class _Reader:
    """Goes through the tokens once: `or` binds least, then `and`, then `not`."""

    def __init__(self, tokens: list[tuple[str, str]], text: str) -> None:
        self._tokens, self._text, self._at = tokens, text, 0

    def either(self, depth: int) -> Query:
        return self._joined("or", depth)

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong()

    def _joined(self, word: str, depth: int) -> Query:
        if depth > MOST_DEPTH:
            raise InvalidRequest(FIELD, "brackets in brackets", f"nest at most {MOST_DEPTH}")
        each = self._both if word == "or" else self._one
        parts = [each(depth)]
        while self._word(word):
            parts.append(each(depth))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _both(self, depth: int) -> Query:
        return self._joined("and", depth)

    def _one(self, depth: int) -> Query:
        negated = False
        while self._word("not"):
            negated = not negated
        if self._take("bracket", "("):
            found = self.either(depth + 1)
            if not self._take("bracket", ")"):
                raise self._wrong()
        else:
            found = self._comparison()
        return Not(found) if negated else found

    def _comparison(self) -> Query:
        found = self._tokens[self._at : self._at + 3]
        if [kind for kind, _ in found[:2]] != ["word", "compare"] or not re.fullmatch(_KEY, found[0][1]):
            raise self._wrong()
        if len(found) < 3 or found[2][0] not in ("word", "text"):
            self._at += 2
            raise self._wrong()
        (_, key), (_, compare), (kind, value) = found
        number = quantity(value) if kind == "word" and compare != "~" else None
        if number is None and compare in ("<", "<=", ">", ">="):
            raise InvalidRequest(FIELD, f"{key} {compare} {value}", "compare with a number, such as 0.9, 90% or 500ms")
        self._at += 3
        return Comparison(key, compare, value if number is None else number)

    def _word(self, word: str) -> bool:
        here = self._tokens[self._at : self._at + 1]
        if here and here[0][0] == "word" and here[0][1].lower() == word:
            self._at += 1
            return True
        return False

    def _take(self, kind: str, value: str) -> bool:
        if self._tokens[self._at : self._at + 1] == [(kind, value)]:
            self._at += 1
            return True
        return False

    def _wrong(self) -> InvalidRequest:
        here = self._tokens[self._at : self._at + 1]
        where = f"{self._text} (at {here[0][1]!r})" if here else f"{self._text} (at its end)"
        return InvalidRequest(FIELD, where, FORM)
