"""Every field that a request body may have, and what becomes of it: one table.

USED fields are read by `wire`. IGNORED ones are OpenAI's own and change nothing that we do. INERT ones are accepted
only with the values that ask for nothing; with any other they are refused, because ignoring them would give a
wrong answer. All else is refused by name: a misspelt field must not pass in silence, and nothing that sets an
identity, an address or a template may come in a body.
"""

import difflib
from typing import Any

from cluster.errors import InvalidRequest, sent, shorten

SAMPLING = frozenset(
    {
        "n",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "seed",
        "stop",
        "stop_token_ids",
        "include_stop_str_in_output",
        "ignore_eos",
        "max_tokens",
        "min_tokens",
        "skip_special_tokens",
    }
)
FORMS = frozenset(
    {"response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}
)
SHARED = (
    SAMPLING
    | FORMS
    | {"model", "stream", "stream_options", "logprobs", "priority", "timeout", "user", "safety_identifier"}
)
CHAT = SHARED | {
    "messages",
    "max_completion_tokens",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
}
COMPLETION = SHARED | {"prompt", "echo"}

IGNORED = frozenset(
    {
        "metadata",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "verbosity",
        "reasoning_effort",
        "prediction",
        "moderation",
        "guided_decoding_backend",  # vLLM's choice of who compiles
    }
)

NO_FUNCTIONS = "send tools and tool_choice, which took their place"
INERT: dict[str, tuple[tuple[Any, ...], str]] = {
    "store": ((False,), "nothing is stored: send false or leave it out"),
    "modalities": ((["text"],), "answers are text"),
    "audio": ((), "answers are text"),
    "functions": (([],), NO_FUNCTIONS),
    "function_call": (("none", "auto"), NO_FUNCTIONS),
    "web_search_options": ((), "nothing here searches the web"),
    "best_of": ((1,), "ask for n choices and take the best"),
    "suffix": (("",), "insertion is not served"),
}

REFUSED = {
    "chat_template": "the model's own template is used, always",
    "chat_template_kwargs": "the model's own template is used, always",
    "api_base": "a request cannot say where it goes",
    "base_url": "a request cannot say where it goes",
    "callback": "answers go to the caller alone",
    "role": "the API key says who asks",
    "tenant_id": "the API key says who asks",
    "is_admin": "the API key says who asks",
    "budget": "the API key says who asks",
}


def known(body: dict[str, Any], used: frozenset[str]) -> dict[str, Any]:
    """The fields of `body` to read; null means left out. Raises InvalidRequest for one that is refused."""
    taken = {}
    for name, value in body.items():
        if name in used:
            if value is not None:
                taken[name] = value
        elif name in INERT:
            harmless, remedy = INERT[name]
            if value is not None and not any(same(value, one) for one in harmless):
                raise InvalidRequest(name, sent(value), remedy)
        elif name not in IGNORED:
            refuse(name, used | IGNORED | INERT.keys())
    return taken


def same(value: Any, other: Any) -> bool:
    """Equal and of one type: 0 is not False, and 1.0 not 1."""
    return type(value) is type(other) and value == other


def refuse(name: str, names: frozenset[str]) -> None:
    """Raises InvalidRequest with the nearest field that there is."""
    shown = shorten(name, 64)
    remedy = REFUSED.get(name) or nearest(name, names)
    raise InvalidRequest(shown, "this unknown field", remedy)


def nearest(name: str, names: frozenset[str]) -> str:
    """What to do about an unknown field."""
    close = difflib.get_close_matches(name[:64], sorted(names), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else "leave it out"
