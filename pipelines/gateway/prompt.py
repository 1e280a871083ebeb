"""Text to tokens, without holding up the streams of others.

Knows a served model's tokenizer and context. Knows nothing of bodies and shapes.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cluster.errors import ContextTooLong, InvalidRequest
from pipelines.chat import Served

AT_ONCE = 8_192  # characters that tokenize in about a millisecond; more go to a thread
WIDEST = 512  # characters of the longest token that vocabularies hold (runs of spaces); text beyond never fits
USUAL = 8  # characters a token that hardly any text exceeds: so much of a long text tells whether the rest matters
SEAM = 64  # tokens by which a text cut short may exceed the same text in one piece


async def chat_tokens(
    served: Served, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> tuple[int, ...]:
    """The conversation as the model's template writes it. Raises ContextTooLong or InvalidRequest."""
    texts = [text for message in messages for text in spoken(message)]
    size = sum(map(len, texts)) + (len(str(tools)) if tools else 0)
    await check_length(served, "messages", max(texts, key=len, default=""), size)
    return tuple(await aside(size, lambda: served.tokenizer.chat(list(messages), list(tools) or None)))


def spoken(message: Mapping[str, Any]) -> list[str]:
    """What a message adds to a prompt: what is said, and with what tools are called."""
    return [message.get("content") or "", *(call["function"]["arguments"] for call in message.get("tool_calls", ()))]


async def text_tokens(served: Served, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
    """A prompt as it is, with what the tokenizer puts before a text. Raises ContextTooLong or InvalidRequest."""
    tokens = prompt if not isinstance(prompt, str) else await encoded(served, prompt)
    if not tokens:
        raise InvalidRequest("prompt", "an empty prompt", "give at least one token")
    return tokens


async def encoded(served: Served, text: str) -> tuple[int, ...]:
    """A text's tokens."""
    await check_length(served, "prompt", text, len(text))
    return tuple(await aside(len(text), lambda: served.tokenizer.encode(text)))


def least(texts: Iterable[str | Sequence[int]]) -> int:
    """How many tokens these have at least, as nearly all texts do; of token ids it is what they are."""
    return sum(len(text) // USUAL if isinstance(text, str) else len(text) for text in texts)


async def check_length(served: Served, field: str, longest: str, characters: int) -> None:
    """Raises ContextTooLong for what cannot fit, before all of it is tokenized: a cheap request stays cheap for us.

    `longest` is the longest of the texts, `characters` what all have together.
    """
    if characters <= AT_ONCE:
        return
    context = served.client.context_tokens
    begin = longest[: context * USUAL]
    hopeless = characters > context * WIDEST
    if not hopeless and len(begin) < len(longest):
        told = await aside(len(begin), lambda: served.tokenizer.encode(begin, field=field))
        hopeless = len(told) > context + SEAM
    if hopeless:
        raise ContextTooLong(field, f"a prompt of {characters} characters", f"this model holds {context} tokens")


async def aside(size: int, work: Callable[[], Sequence[int]]) -> Sequence[int]:
    """The result of `work`, from a thread where the text is long."""
    return work() if size <= AT_ONCE else await asyncio.to_thread(work)
