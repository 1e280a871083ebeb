"""What is asked while faults come, and whether what came back is what an undisturbed run said.

Knows bodies and answers of the HTTP API. Knows nothing of how they travel.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

DIGITS = "0123456789"
LONG_FORM = 20  # times the ten digits are said by a form that leaves one answer
END = "THE END"  # never among them
COLOURS = ("red", "green", "blue")
LEAVES = 100  # events after which a client who leaves has enough
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request that has one answer: greedy, seeded, or held to a form. `leaves`: events until its client goes."""

    name: str
    path: str
    body: Mapping[str, Any]
    leaves: int | None = None

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer is, whatever pieces it came in: each choice's text, end and number of log probabilities."""

    texts: tuple[str, ...] = ()
    finishes: tuple[str | None, ...] = ()
    logprobs: tuple[int, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class Heard:
    """What a client has of one request. `whole`: it came to its end as the API has it. `left`: its client went.

    `again`: it was told to come again, after so many seconds.
    """

    status: int = 0
    whole: bool = False
    error: str = ""
    answer: Answer = Answer()
    left: bool = False
    again: float | None = None


OK, FAILED, CUT, WRONG, USAGE = "ok", "failed", "cut", "wrong", "usage"


def judge(expected: Answer, heard: Heard) -> str:
    """Failed: no answer began. Cut: it did not come to its end. Wrong: another text. Usage: counted otherwise."""
    said, meant = heard.answer, expected
    if heard.status != 200:
        return FAILED
    if heard.left:
        return OK if _begins(meant, said) else WRONG
    if not heard.whole:
        return CUT
    if (said.texts, said.finishes, said.logprobs) != (meant.texts, meant.finishes, meant.logprobs):
        return WRONG
    counted = (said.prompt_tokens, said.completion_tokens) == (meant.prompt_tokens, meant.completion_tokens)
    return OK if counted else USAGE


def _begins(whole: Answer, said: Answer) -> bool:
    """Whether each choice of what was said is how the whole answer begins."""
    pairs = zip(whole.texts, said.texts, strict=False)  # a choice may have said nothing yet
    return len(said.texts) <= len(whole.texts) and all(text.startswith(begun) for text, begun in pairs)


def live(model: str, tokens: int) -> list[Ask]:
    """Streams of `tokens` tokens, of every sort that has to be taken up otherwise."""
    long = {"max_tokens": tokens, "ignore_eos": True}
    return [
        _stream("chat-greedy", CHAT, model, temperature=0, **long, **_said("Count slowly.")),
        _stream("chat-seeded", CHAT, model, seed=11, temperature=1, **long, **_said("Tell me of the sea.")),
        _stream("text-seeded", TEXT, model, seed=7, temperature=0.8, top_p=0.9, **long, prompt="Once upon a time"),
        _stream("text-greedy", TEXT, model, temperature=0, **long, prompt="In the beginning"),
        _stream("choices", CHAT, model, seed=5, temperature=1, n=2, **long, **_said("Name a number.")),
        _stream("logprobs", CHAT, model, seed=3, temperature=1, logprobs=True, **long, **_said("Why?")),
        _stream(
            "form", CHAT, model, seed=2, max_tokens=20 * LONG_FORM, guided_regex=f"({DIGITS}){{{LONG_FORM}}}",
            **_said("Say the digits."),
        ),
        _stream(
            "stop", CHAT, model, seed=6, max_tokens=20 * LONG_FORM, stop=[END],
            guided_regex=f"({DIGITS}){{{LONG_FORM}}}{END}{DIGITS}", **_said("Say the digits and end."),
        ),
        _stream("schema", CHAT, model, seed=8, temperature=1, max_tokens=800, **_schema(), **_said("Paint.")),
        _stream("tools", CHAT, model, seed=10, temperature=1, max_tokens=800, **_tool(), **_said("Paint.")),
        replace(_stream("leaves", CHAT, model, seed=12, temperature=1, **long, **_said("Go on.")), leaves=LEAVES),
        _stream("penalties", TEXT, model, seed=9, presence_penalty=0.5, frequency_penalty=0.2, **long, prompt="On"),
    ]  # fmt: skip


def plain(model: str, tokens: int) -> list[Ask]:
    """Short requests that are answered in one piece."""
    short = {"max_tokens": tokens, "ignore_eos": True}
    return [
        _ask("plain-greedy", CHAT, model, temperature=0, **short, **_said("What is 7 times 8?")),
        _ask("plain-seeded", TEXT, model, seed=21, temperature=1, **short, prompt="A word"),
        _ask("plain-choices", TEXT, model, seed=22, temperature=1, n=2, **short, prompt="Two words"),
        _ask("plain-form", CHAT, model, max_tokens=64, guided_choice=["yes", "no"], seed=4, **_said("Well?")),
    ]


def _picture() -> dict[str, Any]:
    """The JSON schema of a list whose length is set."""
    colours = {"type": "array", "items": {"enum": COLOURS}, "minItems": LONG_FORM, "maxItems": LONG_FORM}
    return {
        "type": "object",
        "properties": {"colours": colours},
        "required": ["colours"],
        "additionalProperties": False,
    }


def _schema() -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "picture", "schema": _picture()}}}


def _tool() -> dict[str, Any]:
    return {
        "tools": [{"type": "function", "function": {"name": "paint", "parameters": _picture()}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


def _said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _ask(name: str, path: str, model: str, **body: Any) -> Ask:
    return Ask(name, path, {"model": model, **body})


def _stream(name: str, path: str, model: str, **body: Any) -> Ask:
    return _ask(name, path, model, stream=True, stream_options={"include_usage": True}, **body)


class Gathering:
    """One answer as its pieces come: events of a stream, or a whole body as the only piece."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._finishes: dict[int, str | None] = {}
        self._logprobs: dict[int, int] = {}
        self._usage: Mapping[str, Any] = {}

    def take(self, piece: Mapping[str, Any]) -> int:
        """One more piece; the characters that it brought."""
        brought = 0
        for choice in piece.get("choices", ()):
            place, text = choice["index"], _text(choice)
            self._texts.setdefault(place, []).append(text)
            brought += len(text)
            self._finishes[place] = choice.get("finish_reason") or self._finishes.get(place)
            self._logprobs[place] = self._logprobs.get(place, 0) + _probabilities(choice)
        self._usage = piece.get("usage") or self._usage
        return brought

    def answer(self) -> Answer:
        """What has come so far."""
        places = sorted(self._texts)
        return Answer(
            tuple("".join(self._texts[place]) for place in places),
            tuple(self._finishes[place] for place in places),
            tuple(self._logprobs[place] for place in places),
            self._usage.get("prompt_tokens", 0),
            self._usage.get("completion_tokens", 0),
        )


def _text(choice: Mapping[str, Any]) -> str:
    """What a choice says, or calls: names and arguments of tools."""
    said = choice.get("delta") or choice.get("message") or {}
    calls = (call.get("function", {}) for call in said.get("tool_calls") or ())
    called = "".join(f"{call.get('name') or ''}{call.get('arguments') or ''}" for call in calls)
    return called or said.get("content") or choice.get("text") or ""


def _probabilities(choice: Mapping[str, Any]) -> int:
    told = choice.get("logprobs") or {}
    return len(told.get("content") or told.get("tokens") or ())
