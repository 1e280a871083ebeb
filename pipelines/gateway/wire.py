"""Request bodies as values: what `/v1/chat/completions` and `/v1/completions` take.

Knows the fields and their types; ranges of sampling are `SamplingParams`'s own. Knows no model and no tokenizer.
"""

from dataclasses import dataclass
from typing import Any

from actors.messages import MAX_CHOICES, MAX_LOGIT_BIAS, MAX_LOGPROBS, SamplingParams
from cluster.errors import InvalidRequest, sent, shorten
from cluster.scheduling.admission import LEAST_URGENT, MOST_URGENT
from pipelines.gateway.fields import CHAT, COMPLETION, SAMPLING, known, nearest
from pipelines.gateway.forms import Asked, asked
from pipelines.gateway.offer import Offer, offer
from pipelines.gateway.said import message
from pipelines.gateway.settings import GatewaySettings

LONGEST_TIMEOUT = 86_400  # seconds; `gateway.request_seconds` holds whatever is asked for
LONGEST_USER = 512  # characters
COMPLETION_TOKENS = 16  # what OpenAI's completions API generates unless told otherwise


@dataclass(frozen=True, slots=True)
class Wanted:
    """What both endpoints ask for.

    `priority`: lower is sooner; None: the key's. `timeout`: seconds for the whole answer; None: the gateway's. `user`:
    whom the client asks for, by a name of the client's; empty: nobody but itself.
    """

    model: str
    params: SamplingParams
    stream: bool
    include_usage: bool
    form: Asked | None
    priority: int | None
    timeout: float | None
    user: str


@dataclass(frozen=True, slots=True)
class ChatRequest(Wanted):
    """A conversation to continue. Contents are plain text. `offer`: tools that the answer may call."""

    messages: tuple[dict[str, Any], ...]
    offer: Offer | None


@dataclass(frozen=True, slots=True)
class CompletionRequest(Wanted):
    """Texts or token ids to continue."""

    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool


def chat_request(body: dict[str, Any], settings: GatewaySettings) -> ChatRequest:
    """Raises InvalidRequest naming the field at fault."""
    fields = known(body, CHAT)
    sampling = {"max_tokens": None} | sampling_of(fields)
    if "max_completion_tokens" in fields:
        sampling["max_tokens"] = whole("max_completion_tokens", fields["max_completion_tokens"], 1, 2**31 - 1)
    sampling["logprobs"] = chat_logprobs(fields)
    common, tools = wanted(fields, sampling), offer(fields)
    if tools is not None and tools.forced and common[4] is not None:
        raise InvalidRequest(
            common[4].field, f"a form of answer beside tool_choice {sent(fields['tool_choice'])}, which forces a call",
            "leave out one of the two, or let tool_choice be auto",
        )  # fmt: skip
    given = listed("messages", fields.get("messages"), settings.messages)
    messages = tuple(message(one, f"messages[{index}]") for index, one in enumerate(given))
    return ChatRequest(*common, messages=messages, offer=tools)


def completion_request(body: dict[str, Any], settings: GatewaySettings) -> CompletionRequest:
    """Raises InvalidRequest naming the field at fault."""
    fields = known(body, COMPLETION)
    sampling = {"max_tokens": COMPLETION_TOKENS} | sampling_of(fields)
    sampling["logprobs"] = fields.get("logprobs")
    common = wanted(fields, sampling)
    found = prompts(fields.get("prompt"))
    room = min(settings.prompts, MAX_CHOICES)
    if len(found) * common[1].n > room:
        raise InvalidRequest(
            "prompt", f"asking for {len(found)} times n={common[1].n} answers", f"{room} at most in one request"
        )
    echo = flag("echo", fields.get("echo", False))
    if echo and common[1].logprobs is not None:
        raise InvalidRequest("echo", True, "logprobs of a prompt are not served: leave out one of the two")
    return CompletionRequest(*common, prompts=found, echo=echo)


def wanted(
    fields: dict[str, Any], sampling: dict[str, Any]
) -> tuple[str, SamplingParams, bool, bool, Asked | None, int | None, float | None, str]:
    """What `Wanted` holds, in its order."""
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("model", sent(model), "name one of /v1/models")
    stream = flag("stream", fields.get("stream", False))
    usage = include_usage(fields.get("stream_options"), stream)
    priority = fields.get("priority")
    if priority is not None:
        whole("priority", priority, MOST_URGENT, LEAST_URGENT)
    seconds, named = timeout(fields.get("timeout")), user(fields)
    return model, SamplingParams(**sampling), stream, usage, asked(fields), priority, seconds, named


def user(fields: dict[str, Any]) -> str:
    """OpenAI's `user`, or what took its place."""
    name = "user" if "user" in fields else "safety_identifier"
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > LONGEST_USER:
        raise InvalidRequest(name, sent(value), f"it is a text of at most {LONGEST_USER} characters")
    return value


def timeout(value: Any) -> float | None:
    """Seconds in which the whole answer is wanted."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_TIMEOUT:
        raise InvalidRequest("timeout", sent(value), f"it is a number of seconds above 0 and at most {LONGEST_TIMEOUT}")
    return float(value)


def sampling_of(fields: dict[str, Any]) -> dict[str, Any]:
    """The sampling fields as `SamplingParams` takes them, with what it does not check itself checked."""
    sampling = {name: value for name, value in fields.items() if name in SAMPLING}
    for name in ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens"):
        if name in sampling:
            flag(name, sampling[name])
    if not isinstance(sampling.get("stop", ""), str | list):
        raise InvalidRequest("stop", sent(sampling["stop"]), "it is a text or a list of texts")
    if not isinstance(sampling.get("stop_token_ids", []), list):
        raise InvalidRequest("stop_token_ids", sent(sampling["stop_token_ids"]), "it is a list of token ids")
    if "logit_bias" in sampling:
        sampling["logit_bias"] = logit_bias(sampling["logit_bias"])
    return sampling


def logit_bias(value: Any) -> dict[int, float]:
    """Token ids are texts in JSON."""
    if not isinstance(value, dict) or len(value) > MAX_LOGIT_BIAS:
        raise InvalidRequest("logit_bias", sent(value), f"it is an object of at most {MAX_LOGIT_BIAS} token ids")
    biases = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) <= 10) or int(token) in biases:
            raise InvalidRequest("logit_bias", sent(token), "each key is a token id, once")
        biases[int(token)] = bias
    return biases


def chat_logprobs(fields: dict[str, Any]) -> int | None:
    """`logprobs` says whether, `top_logprobs` how many besides the chosen token's own."""
    told = flag("logprobs", fields.get("logprobs", False))
    top = whole("top_logprobs", fields.get("top_logprobs", 0), 0, MAX_LOGPROBS)
    if top and not told:
        raise InvalidRequest("top_logprobs", top, "it needs logprobs: true")
    return top if told else None


def include_usage(options: Any, stream: bool) -> bool:
    """Whether a stream ends with its usage."""
    if options is None:
        return False
    if not stream:
        raise InvalidRequest("stream_options", sent(options), "it needs stream: true")
    if not isinstance(options, dict):
        raise InvalidRequest("stream_options", sent(options), "it is an object")
    allowed = frozenset({"include_usage", "include_obfuscation"})
    for name, value in options.items():
        if name not in allowed:
            raise InvalidRequest(f"stream_options.{shorten(name, 64)}", "this unknown field", nearest(name, allowed))
        if value is not None:
            flag(f"stream_options.{name}", value)
    return bool(options.get("include_usage"))


def prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """A text, token ids, or a list of either."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise InvalidRequest("prompt", sent(value), "it is a text, a list of token ids, or a list of either")
    if all(isinstance(one, str) for one in value):
        return tuple(value)
    if all(isinstance(one, list) for one in value):
        return tuple(token_ids(one) for one in value)
    return (token_ids(value),)


def token_ids(value: list[Any]) -> tuple[int, ...]:
    """One prompt of token ids."""
    for token in value:
        if type(token) is not int or not 0 <= token < 2**31:
            raise InvalidRequest("prompt", sent(token), "a list of token ids holds whole numbers of the vocabulary")
    return tuple(value)


def listed(name: str, value: Any, most: int) -> list[Any]:
    """A list with something in it."""
    if not isinstance(value, list) or not value:
        raise InvalidRequest(name, sent(value), "it is a list with at least one element")
    if len(value) > most:
        raise InvalidRequest(name, f"a list of {len(value)}", f"send at most {most}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or false and nothing like it."""
    if not isinstance(value, bool):
        raise InvalidRequest(name, sent(value), "it is true or false")
    return value


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number in range."""
    if type(value) is not int or not low <= value <= high:
        raise InvalidRequest(name, sent(value), f"it is a whole number from {low} to {high}")
    return value
