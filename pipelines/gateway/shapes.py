"""Answers in OpenAI's shapes: whole, and as server-sent events.

An event costs a few microseconds: all but its text is serialised once per choice, because the gateway shares its
cores with the engine. Knows parts and usage. Knows nothing of how they came about.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted  # C; ASCII, so no line separator can split an event
from typing import Any, ClassVar, Protocol

from actors.messages import TokenLogprob
from pipelines.chat import Part, Usage

LOWEST = -9999.0  # what OpenAI's API says for minus infinity, which JSON cannot
DONE = b"data: [DONE]\n\n"


class Words(Protocol):
    """What a shape needs of a tokenizer."""

    def text_of(self, token: int) -> str: ...

    def bytes_of(self, token: int) -> bytes: ...


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def usage_of(usage: Usage) -> dict[str, Any]:
    """The usage object."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def chat_logprobs(logprobs: Sequence[TokenLogprob], words: Words) -> dict[str, Any]:
    """The chat shape: one entry a token, with its bytes."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": words.text_of(token),
            "logprob": max(logprob, LOWEST),
            "bytes": list(words.bytes_of(token)),
        }

    return {
        "content": [
            entry(one.token, one.logprob) | {"top_logprobs": [entry(*top) for top in one.top]} for one in logprobs
        ],
        "refusal": None,
    }


def text_logprobs(logprobs: Sequence[TokenLogprob], words: Words, offset: int) -> dict[str, Any]:
    """The completions shape: four lists side by side. `offset` is where in the text the first token stands."""
    tokens = [words.text_of(one.token) for one in logprobs]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [max(one.logprob, LOWEST) for one in logprobs],
        "top_logprobs": [{words.text_of(token): max(value, LOWEST) for token, value in one.top} for one in logprobs],
        "text_offset": offsets,
    }


@dataclass(slots=True)
class Shape:
    """One answer's envelope; `kinds` are the `object` of a whole answer and of an event."""

    id: str
    created: int
    model: str
    words: Words
    include_usage: bool = False
    logprobs: bool = False
    echoes: Sequence[str] = ()  # what precedes each choice's text
    kinds: ClassVar[tuple[str, str]]
    _heads: dict[int, str] = field(default_factory=dict)
    _offsets: dict[int, int] = field(default_factory=dict)

    def head(self, kind: str) -> str:
        """Every answer and every event begins so."""
        return (
            f'{{"id":{quoted(self.id)},"object":"{kind}","created":{self.created},"model":{quoted(self.model)},'
            f'"choices":['
        )

    def event(self, part: Part) -> bytes:
        """One part as an event."""
        echo = "" if part.choice in self._heads else self.echo(part.choice)
        return self.line(part.choice, self.text(echo + part.text), part.logprobs, part.finish)

    def line(self, choice: int, body: str, logprobs: Sequence[TokenLogprob], finish: str | None) -> bytes:
        """An event of `choice` that holds `body`, after the one that comes before the first."""
        head, before = self._heads.get(choice), ""
        if head is None:
            head, before = self._begin(choice)
        told = compact(self.told(logprobs, choice)) if self.logprobs else "null"
        ending = f'"{finish}"' if finish else "null"
        usage = ',"usage":null' if self.include_usage else ""
        return f'{before}{head}{body},"logprobs":{told},"finish_reason":{ending}}}]{usage}}}\n\n'.encode()

    def _begin(self, choice: int) -> tuple[str, str]:
        """What each event of a choice begins with, and the event that comes before its first, if one does."""
        self._heads[choice] = head = f'data: {self.head(self.kinds[1])}{{"index":{choice},'
        self._offsets[choice] = len(self.echo(choice))
        usage = ',"usage":null' if self.include_usage else ""
        body = self.opening()
        return head, body and f'{head}{body},"logprobs":null,"finish_reason":null}}]{usage}}}\n\n'

    def last(self, usage: Usage) -> bytes:
        """What ends a stream."""
        if not self.include_usage:
            return DONE
        return f'data: {self.head(self.kinds[1])}],"usage":{compact(usage_of(usage))}}}\n\n'.encode() + DONE

    def whole(self, choices: Sequence[Sequence[Part]], usage: Usage) -> bytes:
        """The answer in one piece; each choice by its parts, of which the last has `finish`."""
        made = ",".join(compact(self.choice(index, parts)) for index, parts in enumerate(choices))
        return f'{self.head(self.kinds[0])}{made}],"usage":{compact(usage_of(usage))}}}'.encode()

    def choice(self, index: int, parts: Sequence[Part]) -> dict[str, Any]:
        """One choice of a whole answer."""
        self._offsets[index] = len(self.echo(index))
        logprobs = [one for part in parts for one in part.logprobs]
        return {
            "index": index,
            **self.said("".join(part.text for part in parts), index),
            "logprobs": self.told(logprobs, index) if self.logprobs else None,
            "finish_reason": parts[-1].finish,
        }

    def echo(self, index: int) -> str:
        """What precedes a choice's text."""
        return self.echoes[index] if self.echoes else ""

    def opening(self) -> str:
        """What a choice's first event holds, before there is text; empty for no such event."""
        return ""

    def text(self, text: str) -> str:
        """The text field of an event."""
        raise NotImplementedError

    def said(self, text: str, index: int) -> dict[str, Any]:
        """The text field of a whole answer's choice."""
        raise NotImplementedError

    def told(self, logprobs: Sequence[TokenLogprob], index: int) -> dict[str, Any]:
        """The logprobs field."""
        raise NotImplementedError


class ChatShape(Shape):
    """`chat.completion` and its chunks.

    The role comes in an event of its own, in one write with the first text: OpenAI's client counts the
    log probabilities of a choice's first event twice when it gathers a stream.
    """

    kinds = ("chat.completion", "chat.completion.chunk")

    def opening(self) -> str:
        return '"delta":{"role":"assistant","content":""}'

    def text(self, text: str) -> str:
        return f'"delta":{{"content":{quoted(text)}}}'

    def said(self, text: str, index: int) -> dict[str, Any]:  # noqa: ARG002
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def told(self, logprobs: Sequence[TokenLogprob], index: int) -> dict[str, Any]:  # noqa: ARG002
        return chat_logprobs(logprobs, self.words)


class TextShape(Shape):
    """`text_completion`, whole and in events."""

    kinds = ("text_completion", "text_completion")

    def text(self, text: str) -> str:
        return f'"text":{quoted(text)}'

    def said(self, text: str, index: int) -> dict[str, Any]:
        return {"text": self.echo(index) + text}

    def told(self, logprobs: Sequence[TokenLogprob], index: int) -> dict[str, Any]:
        told = text_logprobs(logprobs, self.words, self._offsets[index])
        self._offsets[index] += sum(map(len, told["tokens"]))
        return told
