"""Render a conversation by a model's own Jinja template, as transformers does.

Owns the sandbox. Knows nothing of tokens. The environment (options, globals, filters, the generation tag)
follows transformers 5.23, `utils/chat_template_utils.py`, and is held to it by a test.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from actors.engine.conversation import Message
from cluster.errors import InvalidRequest, ModelInvalid

REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing under three names; templates read the first
# What a template can raise over a conversation that it was not written for. MemoryError and the like pass.
FAULTS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ChatTemplate:
    """One compiled template with the special tokens that it may name. Raises ModelInvalid if it does not compile."""

    def __init__(self, source: str, origin: str, variables: Mapping[str, str]) -> None:
        self.source, self._variables = source, dict(variables)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelInvalid(origin, f"the chat template does not compile: {error}", "mend the template") from error

    def render(self, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> str:
        """The prompt that ends where the assistant begins to speak. Raises InvalidRequest."""
        try:
            return self._template.render(
                messages=[_cleaned(message) for message in messages],
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=True,
                **self._variables,
            )
        except FAULTS as error:
            raise InvalidRequest(
                "messages", str(error) or type(error).__name__, "the model's chat template refuses this conversation"
            ) from error


def check(source: str, origin: str) -> None:
    """Raises ModelInvalid for what is no template, which is only parsed."""
    try:
        _environment().parse(source)
    except (jinja2.TemplateError, RecursionError) as error:
        problem = f"the chat template is no Jinja: {error}"
        raise ModelInvalid(origin, problem, "mend the template") from None


def _cleaned(message: Message) -> dict[str, Any]:
    """Without nulls, which templates would spell "None", and with reasoning under the names that templates read."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


class _Generation(Extension):
    """`{% generation %}` marks what the assistant said, for training; here it says what it holds."""

    tags = {"generation"}  # noqa: RUF012 (declared so by Jinja)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(Namespace):
    """A namespace without underscored names, which lead to Python's insides."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        Namespace.__init__(*args, **kwargs)
        for name in dict(*args[1:], **kwargs):
            _refuse_underscore(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


class _Dict:
    """`dict` as templates need it: the function, not the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _environment() -> ImmutableSandboxedEnvironment:
    # No autoescape: the result is read by a model, not a browser.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(style: str) -> str:
    return datetime.now().strftime(style)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names there begin with a letter")
