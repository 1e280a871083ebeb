"""Bring the messages of a chat request into the shape that chat templates are written for.

Knows the OpenAI schema of a message and what Hugging Face templates expect of it. Knows nothing of tokens.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import InvalidRequest, sent

# A template may build control tokens of the role, so a client cannot invent one.
ROLES = ("system", "developer", "user", "assistant", "tool", "function")

Message = Mapping[str, Any]


def readable(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The same messages with text parts joined and tool arguments parsed. Raises InvalidRequest naming the field."""
    if not messages:
        raise InvalidRequest("messages", "an empty list", "send at least one message")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def refuse_surrogates(value: Any, field: str) -> None:
    """Raise InvalidRequest if a text anywhere in `value` cannot be written in UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            lone = value[error.start : error.start + 1]
            raise InvalidRequest(field, ascii(lone), "send text without lone surrogates") from error
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_surrogates(key, field)
            refuse_surrogates(inner, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            refuse_surrogates(inner, f"{field}[{index}]")


def _message(message: Any, field: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidRequest(field, sent(message), "a message is an object with role and content")
    refuse_surrogates(message, field)
    shaped = dict(message)
    if shaped.get("role") not in ROLES:
        raise InvalidRequest(f"{field}.role", sent(shaped.get("role")), f"it is one of {', '.join(ROLES)}")
    if shaped.get("content") is None and shaped["role"] != "assistant":
        raise InvalidRequest(f"{field}.content", "nothing", f"a {shaped['role']} message has content")
    shaped["content"] = _content(shaped.get("content"), f"{field}.content")
    if shaped.get("tool_calls") is not None:
        shaped["tool_calls"] = _calls(shaped["tool_calls"], f"{field}.tool_calls")
    return shaped


def _content(content: Any, field: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise InvalidRequest(field, sent(content), "it is a text or a list of text parts")
    return "\n".join(_part(part, f"{field}[{index}]") for index, part in enumerate(content))


def _part(part: Any, field: str) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        kind = part.get("type", part) if isinstance(part, Mapping) else part
        raise InvalidRequest(f"{field}.type", sent(kind), 'this model reads text alone: {"type": "text", "text": ...}')
    text: str = part["text"]
    return text


def _calls(calls: Any, field: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise InvalidRequest(field, sent(calls), "it is a list of tool calls")
    return [_call(call, f"{field}[{index}]") for index, call in enumerate(calls)]


def _call(call: Any, field: str) -> dict[str, Any]:
    """OpenAI sends arguments as JSON in a text; templates spell them out from an object."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InvalidRequest(field, sent(call), "it is an object with a function")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
            refuse_surrogates(arguments, f"{field}.function.arguments")
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"{field}.function.arguments", sent(arguments), "it is a JSON object as text"
            ) from error
    return {**call, "function": {**function, "arguments": arguments}}
