"""How models write tool calls, and how to hear them in a text that comes in pieces.

A form is chosen by the model's own chat template, which shows calls in the form that the model was taught. Knows text
and JSON. Knows nothing of HTTP and of events.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from actors.engine.grammar import JSON_OPTIONS
from actors.engine.soundness import escapes, sound
from pipelines.gateway.offer import Offer, Tool
from pipelines.gateway.scan import CallScanner

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

PARALLEL = 16  # calls in one answer that was told to call; without a bound a poor model calls until its tokens are out
OPEN, CLOSE, PYTHON = "<tool_call>", "</tool_call>", "<|python_tag|>"


@dataclass(frozen=True, slots=True)
class Heard:
    """A piece of an answer: text, or of the call number `call` its name or more of its arguments."""

    text: str = ""
    call: int | None = None
    name: str = ""
    arguments: str = ""


class Ear(Protocol):
    """One answer as it comes."""

    calls: int

    @property
    def open(self) -> bool:
        """Whether a call has begun that has not come to its end."""
        ...

    def feed(self, text: str) -> list[Heard]:
        """What the next piece of text adds."""
        ...

    def end(self) -> list[Heard]:
        """What was held back: the answer is over."""
        ...


class Form(Protocol):
    """One way of writing calls."""

    def spec(self, offer: Offer, content: str | None) -> str | None:
        """The constraint that keeps an answer to the form, None for none; `content` is a schema for other answers."""
        ...

    def ear(self, offer: Offer) -> Ear:
        """Who hears calls of the tools on offer."""
        ...


def form_of(template: str) -> Form | None:
    """The form that a chat template shows; None where it has no place for tools, or shows one that is not known."""
    if OPEN in template and "<function=" not in template:
        return Tagged(any(f"{OPEN}{line}" in template for line in ("\n", "\\n")))
    if "tools" in template and '"parameters"' in template and ('"name"' in template or "python_tag" in template):
        return Bare()
    return None


@dataclass(frozen=True, slots=True)
class Tagged:
    """Hermes, Qwen and our starter: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, perhaps on lines."""

    lines: bool

    def spec(self, offer: Offer, content: str | None) -> str:
        line = r'"\n"' if self.lines else ""
        rules = [f"call: {quoted(OPEN)} body", f"body: {line} ({options(offer)}) {line} {quoted(CLOSE)}"]
        rules += called(offer.callable, "arguments")
        if offer.forced:
            rules.insert(0, f"start: {repeated(offer, line)}")
        elif content is not None:
            rules[:0] = [f"start: {repeated(offer, line)} | content", f"content: %json {content}"]
        else:
            most = "*" if offer.parallel else "?"
            rules[0] = f"start: (said body){most} TEXT\nsaid[lazy]: TEXT {quoted(OPEN)}\nTEXT: /(.|\\n)*/"
        return "calls:%llguidance {}\n" + "\n".join(rules)

    def ear(self, offer: Offer) -> Ear:
        return TaggedEar(offer)


@dataclass(frozen=True, slots=True)
class Bare:
    """Llama 3: the whole answer is `{"name": ..., "parameters": {...}}`, several are separated by `;`."""

    def spec(self, offer: Offer, content: str | None) -> str | None:
        if not offer.forced and content is None:
            return None  # an answer that happens to be JSON must stay possible
        rules = [f"call: {options(offer)}", *called(offer.callable, "parameters")]
        start = f"start: {repeated(offer, quoted('; '))}"
        if not offer.forced:
            start += f" | content\ncontent: %json {content}"
        return "calls:%llguidance {}\n" + "\n".join([start, *rules])

    def ear(self, offer: Offer) -> Ear:
        return BareEar(offer)


def options(offer: Offer) -> str:
    """Any of the tools that may be called."""
    return " | ".join(f"call_{index}" for index in range(len(offer.callable)))


def repeated(offer: Offer, between: str) -> str:
    """One call, or several where that is allowed."""
    return "call" if offer.named or not offer.parallel else f"call ({between} call){{0,{PARALLEL - 1}}}"


def called(tools: Sequence[Tool], key: str) -> list[str]:
    """A rule for each tool's call."""
    between = quoted(f', "{key}": ')
    heads = [quoted(json.dumps({"name": tool.name})[:-1]) for tool in tools]
    return [
        f'call_{index}: {head} {between} %json {with_options(tool.parameters)} "}}"'
        for index, (head, tool) in enumerate(zip(heads, tools, strict=True))
    ]


def with_options(schema: str, options: "JsonCompileOptions" = JSON_OPTIONS) -> str:
    """A schema that leaves as little whitespace as any other and is as sound, if it does not say otherwise itself."""
    return json.dumps({"x-guidance": options | escapes(schema)} | json.loads(sound(schema)), ensure_ascii=False)


def quoted(text: str) -> str:
    """A literal of a Lark grammar."""
    return json.dumps(text)


class TaggedEar:
    """Text up to the opening tag, a call up to the closing one, and so on."""

    def __init__(self, offer: Offer) -> None:
        self.calls = 0
        self._names = {tool.name for tool in offer.callable}
        self._most = None if offer.parallel and not offer.named else 1
        self._held = ""
        self._blank: str | None = ""  # lines broken before anything is said; None once something is
        self._scanner: CallScanner | None = None

    @property
    def open(self) -> bool:
        return self._scanner is not None and self._scanner.named and not self._scanner.done

    def feed(self, text: str) -> list[Heard]:
        self._held += text
        heard: list[Heard] = []
        while self._held and (self._talk(heard) if self._scanner is None else self._call(self._scanner, heard)):
            pass
        return heard

    def end(self) -> list[Heard]:
        held, scanner = self._held, self._scanner
        if scanner is not None:
            held = "" if scanner.named else OPEN + scanner.text
        held = (self._blank or "") + held if self.calls == 0 else held
        self._held, self._blank = "", None
        return [Heard(held)] if held else []

    def _talk(self, heard: list[Heard]) -> bool:
        """Tell text; whether a call begins behind it."""
        over = self._most is not None and self.calls >= self._most
        before, found, after = (self._held, "", "") if over else self._held.partition(OPEN)
        if found:
            self._scanner, self._held = CallScanner(self._names, ("arguments",)), after
        else:
            cut = len(before) - (0 if over else overlap(before, OPEN))
            before, self._held = before[:cut], before[cut:]
        self._say(before, heard)
        if found:
            self._blank = ""
        return bool(found)

    def _say(self, text: str, heard: list[Heard]) -> None:
        """Line breaks around calls are part of the form, not of what is said."""
        if self._blank is not None:
            self._blank += text
            if not self._blank.strip():
                return
            text, self._blank = self._blank if self.calls == 0 else self._blank.lstrip(), None
        if text:
            heard.append(Heard(text))

    def _call(self, scanner: CallScanner, heard: list[Heard]) -> bool:
        """Read on in a call; whether it is over."""
        if not scanner.done:
            self._held, self.calls = scanned(scanner, self._held, self.calls, heard)
        if scanner.broken:
            self._scanner = None
            self._say(OPEN + scanner.text, heard)
            return True
        rest = self._held.lstrip()
        if not scanner.done or (CLOSE.startswith(rest) and rest != CLOSE):
            return False
        self._held, self._scanner = rest.removeprefix(CLOSE), None
        return True


class BareEar:
    """A whole answer of calls, or none."""

    def __init__(self, offer: Offer) -> None:
        self.calls = 0
        self._names = {tool.name for tool in offer.callable}
        self._most = PARALLEL if offer.parallel and not offer.named else 1
        self._scanner: CallScanner | None = None
        self._held = ""
        self._plain = False

    @property
    def open(self) -> bool:
        return self._scanner is not None and self._scanner.named and not self._scanner.done

    def feed(self, text: str) -> list[Heard]:
        self._held += text
        heard: list[Heard] = []
        while self._held and not self._plain and (self._begin() if self._scanner is None else self._call(heard)):
            pass
        if self._plain and self._held:
            heard.append(Heard(self._held))
            self._held = ""
        return heard

    def end(self) -> list[Heard]:
        held, scanner = self._held, self._scanner
        if scanner is not None:
            held = "" if scanner.named else scanner.text
        self._held = ""
        return [Heard(held)] if held.strip() else []

    def _begin(self) -> bool:
        """Whether a call begins here."""
        rest = self._held.lstrip(" \n\t;" if self.calls else " \n\t")
        begun = rest.removeprefix(PYTHON).lstrip()
        if PYTHON.startswith(rest) or not begun:
            return False
        rest = begun
        self._plain = not rest.startswith("{") or self.calls >= self._most
        if not self._plain:
            self._held, self._scanner = rest, CallScanner(self._names, ("parameters", "arguments"))
        return not self._plain

    def _call(self, heard: list[Heard]) -> bool:
        """Read on in a call; whether it is over."""
        scanner = self._scanner
        assert scanner is not None
        self._held, self.calls = scanned(scanner, self._held, self.calls, heard)
        if scanner.broken:
            heard.append(Heard(scanner.text))
            self._plain = True
        if scanner.done or scanner.broken:
            self._scanner = None
        return scanner.done


def scanned(scanner: CallScanner, text: str, calls: int, heard: list[Heard]) -> tuple[str, int]:
    """Let `scanner` read on: what it left of the text, and how many calls there are by now."""
    was_named = scanner.named
    rest, arguments = scanner.feed(text)
    if scanner.named and not was_named:
        heard.append(Heard(call=calls, name=scanner.name))
        calls += 1
    if arguments:
        heard.append(Heard(call=calls - 1, arguments=arguments))
    return rest, calls


def overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)
