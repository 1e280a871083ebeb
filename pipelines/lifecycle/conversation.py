"""A conversation as text: the one chat form that training, the chat template and the tokenizer agree on.

Owns the Jinja template that ships with the model and the same form in plain Python, which is fast enough for a
training stream. A test holds the two together.
"""

from collections.abc import Sequence
from typing import Any

from pipelines.lifecycle.data.example import Turn

PAD, START, END, CALL, CALL_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"
SPECIAL = (PAD, START, END)
VISIBLE = (CALL, CALL_END)

TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{- content -}}
{%- elif content -%}{%- for part in content -%}{{- part.text if part.text is defined else '' -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set leading = messages and messages[0].role in ('system', 'developer') -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if leading -%}{{- text(messages[0].content) + '\\n' -}}{%- endif -%}
{{- 'Tools:' -}}
{%- for tool in tools -%}
{%- set function = tool.function if tool.function is defined else tool -%}
{%- set parameters = function.parameters if function.parameters is defined and function.parameters else {} -%}
{%- set names = (parameters.properties if parameters.properties is defined else {}) | list -%}
{{- '\\n- ' + function.name + '(' + (names | join(', ')) + '): ' + (function.description or '') -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (tools and leading and loop.first) -%}
{{- '<|im_start|>' + ('system' if message.role == 'developer' else message.role) + '\\n' -}}
{{- text(message.content) -}}
{%- if message.tool_calls is defined and message.tool_calls -%}
{%- for call in message.tool_calls -%}
{%- set function = call.function if call.function is defined else call -%}
{%- set given = function.arguments if function.arguments is string else function.arguments | tojson -%}
{{- '<tool_call>{"name": "' + function.name + '", "arguments": ' + given + '}</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def opening(system: str | None, tools: Sequence[dict[str, Any]]) -> str:
    """The system turn, if there is anything to say in it."""
    if not tools:
        return f"{START}system\n{system}{END}\n" if system else ""
    lines = [system] if system else []
    lines.append("Tools:")
    for tool in tools:
        function = tool["function"]
        names = ", ".join(function["parameters"]["properties"])
        lines.append(f"- {function['name']}({names}): {function['description']}")
    return f"{START}system\n" + "\n".join(lines) + f"{END}\n"


def spans(turns: Sequence[Turn], system: str | None, tools: Sequence[dict[str, Any]]) -> list[tuple[str, bool]]:
    """The conversation in pieces, and of each whether the assistant writes it."""
    pieces: list[tuple[str, bool]] = []
    given = opening(system, tools)
    for role, content in turns:
        given += f"{START}{role}\n"
        if role == "assistant":
            pieces += [(given, False), (content + END, True)]
            given = "\n"
        else:
            given += f"{content}{END}\n"
    return pieces


def prompt(turns: Sequence[Turn], system: str | None, tools: Sequence[dict[str, Any]]) -> str:
    """All before the last answer, ending where the assistant starts."""
    return "".join(text for text, _ in spans(turns, system, tools)[:-1])


def messages(turns: Sequence[Turn], system: str | None = None) -> list[dict[str, str]]:
    """The conversation as a client of a chat API would send it."""
    said = [{"role": "system", "content": system}] if system else []
    return said + [{"role": role, "content": content} for role, content in turns]
