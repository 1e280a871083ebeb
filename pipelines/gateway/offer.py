"""The tools that a chat request offers and how they may be chosen, as OpenAI's clients say it.

Knows the fields of a request. Knows nothing of how a model writes a call.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.constraint import schema_text
from cluster.errors import InvalidRequest, sent, shorten

TOOLS = 128  # the OpenAI API's own limit
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
FUNCTION = frozenset({"name", "description", "parameters", "strict"})
ANYTHING = '{"type":"object"}'


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. `parameters` is its JSON schema as text, `definition` what a chat template reads."""

    name: str
    parameters: str
    strict: bool
    definition: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """Some tools, of which `choice` says whether one must be called: "auto", "required" or a tool's name."""

    tools: tuple[Tool, ...]
    choice: str = "auto"
    named: bool = False
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The tools that this answer may call."""
        return tuple(tool for tool in self.tools if not self.named or tool.name == self.choice)

    @property
    def forced(self) -> bool:
        """Whether the answer is a call and nothing else."""
        return self.named or self.choice == "required"

    @property
    def definitions(self) -> list[Mapping[str, Any]]:
        """What the chat template reads."""
        return [tool.definition for tool in self.tools]


def offer(fields: Mapping[str, Any]) -> Offer | None:
    """What `tools`, `tool_choice` and `parallel_tool_calls` say; None for no tools. Raises InvalidRequest."""
    given = fields.get("tools", [])
    if not isinstance(given, list):
        raise InvalidRequest("tools", sent(given), "it is a list of functions")
    if len(given) > TOOLS:
        raise InvalidRequest("tools", f"a list of {len(given)}", f"offer at most {TOOLS}")
    tools = tuple(tool(one, f"tools[{index}]") for index, one in enumerate(given))
    names = [one.name for one in tools]
    if twice := next((name for index, name in enumerate(names) if name in names[:index]), None):
        raise InvalidRequest("tools", sent(twice), "each name stands once")
    choice, named = chosen(fields.get("tool_choice", "auto" if tools else "none"), names)
    parallel = fields.get("parallel_tool_calls", True)
    if not isinstance(parallel, bool):
        raise InvalidRequest("parallel_tool_calls", sent(parallel), "it is true or false")
    return None if choice == "none" and not named else Offer(tools, choice, named, parallel)


def tool(value: Any, field: str) -> Tool:
    """One of `tools`."""
    if not isinstance(value, dict) or value.get("type") != "function" or not isinstance(value.get("function"), dict):
        raise InvalidRequest(field, sent(value), 'it is {"type": "function", "function": {...}}')
    function = {name: inner for name, inner in value["function"].items() if inner is not None}
    if unknown := sorted({*function} - FUNCTION) or sorted({*value} - {"type", "function"}):
        raise InvalidRequest(f"{field}.{shorten(unknown[0], 64)}", "this unknown field", "leave it out")
    name, description = function.get("name"), function.get("description", "")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(f"{field}.function.name", sent(name), "it is 1 to 64 letters, digits, _ and -")
    if not isinstance(description, str):
        raise InvalidRequest(f"{field}.function.description", sent(description), "it is a text")
    strict = function.get("strict", False)
    if not isinstance(strict, bool):
        raise InvalidRequest(f"{field}.function.strict", sent(strict), "it is true or false")
    return Tool(name, parameters(function.get("parameters"), f"{field}.function.parameters"), strict, value)


def parameters(value: Any, field: str) -> str:
    """A function's schema as text; one that is none, or says nothing, takes any object."""
    if not value:
        return ANYTHING
    if not isinstance(value, dict):
        raise InvalidRequest(field, sent(value), "it is a JSON schema of type object")
    if value.get("type", "object") != "object":
        raise InvalidRequest(f"{field}.type", sent(value["type"]), "arguments are an object")
    return schema_text({"type": "object"} | value, field)


def chosen(value: Any, names: list[str]) -> tuple[str, bool]:
    """`tool_choice`: a mode, or the name of a tool that must be called."""
    if isinstance(value, str):
        if value not in ("none", "auto", "required"):
            raise InvalidRequest("tool_choice", sent(value), "it is none, auto, required or one function")
        if value == "required" and not names:
            raise InvalidRequest("tool_choice", sent(value), "it needs tools")
        return value if names else "none", False
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        raise InvalidRequest(
            "tool_choice", sent(value), 'name one of the tools: {"type": "function", "function": {...}}'
        )
    return name, True
