"""Text to tokens, without holding up the streams of others.

Knows a served model's tokenizer and context. Knows nothing of bodies and shapes.
"""

import asyncio
from collections.abc import Sequence

from cluster.errors import ContextTooLong, InvalidRequest
from pipelines.chat import Served

AT_ONCE = 8_192  # characters that tokenize in about a millisecond; more go to a thread
WIDEST = 512  # characters of the longest token that vocabularies hold (runs of spaces); text beyond never fits


def check_length(served: Served, field: str, characters: int) -> None:
    """Raises ContextTooLong for text that cannot fit however it is cut: nothing is tokenized in vain."""
    context = served.client.context_tokens
    if characters > context * WIDEST:
        raise ContextTooLong(field, f"{characters} characters", f"this model holds {context} tokens")


async def chat_tokens(served: Served, messages: Sequence[dict[str, str]]) -> tuple[int, ...]:
    """The conversation as the model's template writes it."""
    size = sum(len(message["content"]) for message in messages)
    check_length(served, "messages", size)
    spoken = list(messages)
    if size <= AT_ONCE:
        return tuple(served.tokenizer.chat(spoken))
    return tuple(await asyncio.to_thread(served.tokenizer.chat, spoken))


async def text_tokens(served: Served, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
    """A prompt as it is, with what the tokenizer puts before a text."""
    if not isinstance(prompt, str):
        tokens = prompt
    else:
        check_length(served, "prompt", len(prompt))
        if len(prompt) <= AT_ONCE:
            tokens = tuple(served.tokenizer.encode(prompt))
        else:
            tokens = tuple(await asyncio.to_thread(served.tokenizer.encode, prompt))
    if not tokens:
        raise InvalidRequest("prompt", "an empty prompt", "give at least one token")
    return tokens
