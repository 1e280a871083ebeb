"""Read one call, `{"name": "...", "arguments": {...}}`, as it comes: its name at once, its arguments piece by piece.

Knows JSON's strings and brackets. Whether the arguments fit a schema is for the grammar that made them.
"""

import json
from collections.abc import Collection

LONGEST_HEAD = 4096  # characters before a name is known


class CallScanner:
    """One object. Arguments are told only once the name is known to be one of `names`; else it is `broken`."""

    def __init__(self, names: Collection[str], keys: Collection[str]) -> None:
        self._names, self._keys = names, keys
        self.text = ""  # all that was read, for when it is no call after all
        self.name = ""
        self.named = self.done = self.broken = False
        self._depth = 0
        self._string = self._escaped = False
        self._key: str | None = None  # of the member that is being read
        self._value = ""  # so far: of a key, or of a value that is no argument
        self._arguments: list[str] = []  # read and not yet told
        self._argued = False

    def feed(self, text: str) -> tuple[str, str]:
        """Read on, to the object's end at most: the text that is left, and what arguments may be told now."""
        for place, character in enumerate(text):
            if not self.named:
                self.text += character
            self._read(character)
            if self.done or self.broken:
                return text[place + 1 :], self._told()
        return "", self._told()

    def _told(self) -> str:
        if not self.named or self.broken:
            return ""
        told, self._arguments = "".join(self._arguments), []
        return told

    def _read(self, character: str) -> None:
        if self._depth == 0:
            if character == "{":
                self._depth = 1
            elif not character.isspace():
                self.broken = True
            return
        if self._depth == 1 and not self._string and character in ":,}":
            self._member(character)
            return
        self._keep(character)
        if self._string:
            self._inside(character)
        elif character == '"':
            self._string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
        if not self.named and len(self.text) > LONGEST_HEAD:
            self.broken = True

    def _inside(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._string = False

    def _keep(self, character: str) -> None:
        """A character of a key or a value."""
        if self._key in self._keys:
            if self._arguments or not character.isspace() or self._value:
                self._arguments.append(character)
                self._value, self._argued = "begun", True
        else:
            self._value += character

    def _member(self, character: str) -> None:
        """What stands between keys and values of the object itself."""
        if character == ":":
            self._key, self._value = self._parsed(), ""
            return
        if self._key == "name" and not self.named:
            self.name = self._parsed()
            self.named = self.name in self._names
            self.broken = not self.named
        self._key, self._value = None, ""
        if character == "}":
            self.done = self.named
            self.broken = not self.named
            if self.done and not self._argued:
                self._arguments.append("{}")

    def _parsed(self) -> str:
        """A key or a name as text; empty where it is none."""
        try:
            value = json.loads(self._value)
        except ValueError:
            return ""
        return value if isinstance(value, str) else ""
