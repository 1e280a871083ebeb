"""Messages of a chat request: who said which text, called what, and what came of it.

Knows the fields of a message. Knows no model and no template.
"""

import json
from typing import Any

from cluster.errors import InvalidRequest, sent, shorten
from pipelines.gateway.fields import nearest

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
FIELDS = frozenset(
    {
        "role",
        "content",
        "name",
        "refusal",
        "annotations",
        "audio",
        "function_call",
        "tool_calls",
        "tool_call_id",
        "reasoning_content",
    }
)
CALLS = 128
CALL_FIELDS = frozenset({"id", "type", "function", "index"})


def message(value: Any, at: str) -> dict[str, Any]:
    """The message at `at`, as templates read it. Raises InvalidRequest for what a text model cannot take."""
    if not isinstance(value, dict):
        raise InvalidRequest(at, sent(value), "each message is an object")
    if unknown := value.keys() - FIELDS:
        name = sorted(unknown)[0]
        raise InvalidRequest(f"{at}.{shorten(name, 64)}", "this unknown field", nearest(name, FIELDS))
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(f"{at}.role", sent(role), f"it is one of {', '.join(ROLES)}")
    for name in ("audio", "function_call"):
        if value.get(name):
            raise InvalidRequest(f"{at}.{name}", sent(value[name]), "audio and functions are not served")
    made: dict[str, Any] = {"role": ROLES[role]}
    if calls := value.get("tool_calls"):
        made["tool_calls"] = tool_calls(calls, role, f"{at}.tool_calls")
    if "tool_calls" not in made or value.get("content") is not None:
        made["content"] = content(value.get("content"), f"{at}.content")
    if role == "assistant" and value.get("reasoning_content") is not None:
        made["reasoning_content"] = content(value["reasoning_content"], f"{at}.reasoning_content")
    if value.get("name") is not None:
        made["name"] = short_text(f"{at}.name", value["name"])
    if role == "tool":
        made["tool_call_id"] = short_text(f"{at}.tool_call_id", value.get("tool_call_id"), 256)
    elif value.get("tool_call_id"):
        raise InvalidRequest(f"{at}.tool_call_id", sent(value["tool_call_id"]), "only messages of role tool have one")
    return made


def tool_calls(value: Any, role: str, at: str) -> list[dict[str, Any]]:
    """What the assistant called."""
    if role != "assistant":
        raise InvalidRequest(at, sent(value), "only the assistant calls tools")
    if not isinstance(value, list) or len(value) > CALLS:
        raise InvalidRequest(at, sent(value), f"it is a list of at most {CALLS} calls")
    return [tool_call(one, f"{at}[{index}]") for index, one in enumerate(value)]


def tool_call(value: Any, at: str) -> dict[str, Any]:
    """One call; its arguments are a JSON object as text."""
    function = (
        value.get("function") if isinstance(value, dict) and value.get("type", "function") == "function" else None
    )
    if not isinstance(function, dict) or value.keys() - CALL_FIELDS or function.keys() - {"name", "arguments"}:
        raise InvalidRequest(at, sent(value), 'it is {"id": ..., "type": "function", "function": {...}}')
    name, arguments = function.get("name"), function.get("arguments", "{}")
    short_text(f"{at}.function.name", name)
    try:
        parsed = json.loads(arguments or "{}") if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"{at}.function.arguments", sent(arguments), "it is a JSON object as text")
    made = {"type": "function", "function": {"name": name, "arguments": arguments or "{}"}}
    return made if value.get("id") is None else made | {"id": short_text(f"{at}.id", value["id"], 256)}


def content(value: Any, at: str) -> str:
    """A message's text, given whole or as text parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise InvalidRequest(at, sent(value), "it is a text or a list of text parts")
    return "".join(text_part(part, f"{at}[{index}]") for index, part in enumerate(value))


def text_part(part: Any, at: str) -> str:
    """The text of one part."""
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, dict) else part
        raise InvalidRequest(
            f"{at}.type", sent(kind), 'this model reads text: send parts {"type": "text", "text": ...}'
        )
    text: str = part["text"]
    return text


def short_text(name: str, value: Any, most: int = 64) -> str:
    """A text of at most `most` characters."""
    if not isinstance(value, str) or len(value) > most:
        raise InvalidRequest(name, sent(value), f"it is a text of at most {most} characters")
    return value
