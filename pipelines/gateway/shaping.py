"""Hold an answer to what a request asks of its form: a constraint, calls of tools, or both.

Knows requests, forms of calls and verdicts. Knows nothing of events.
"""

from dataclasses import dataclass, replace

from actors.engine.grammar import COMPACT_OPTIONS, MARKS
from actors.messages import SamplingParams
from cluster.errors import InvalidRequest
from pipelines.chat import Served
from pipelines.gateway.calls import Form, form_of, with_options
from pipelines.gateway.forms import Asked
from pipelines.gateway.offer import ANYTHING, Offer, Tool


@dataclass(frozen=True, slots=True)
class Calling:
    """The tools on offer and how this model writes calls."""

    offer: Offer
    form: Form


async def constrained(
    served: Served, params: SamplingParams, asked: Asked | None, calling: Calling | None
) -> SamplingParams:
    """`params` with the constraint that `asked` and `calling` make together. Raises InvalidRequest naming the field."""
    if asked is not None:
        await served.verdicts.check(asked.spec, asked.field)
    if calling is None:
        return params if asked is None else replace(params, structured_outputs=asked.spec)
    params = audible(served, params)
    if not served.verdicts.possible and not calling.offer.forced and asked is None:
        return params
    offer = await lenient(served, calling.offer)
    content = content_schema(asked)
    spec = calling.form.spec(offer, content and with_options(content))
    if spec is None:
        return params
    await served.verdicts.check(spec, "tools")
    return replace(params, structured_outputs=spec)


def calling_of(served: Served, offer: Offer | None) -> Calling | None:
    """How this model calls the tools on offer. Raises InvalidRequest for a model that was not taught to."""
    if offer is None:
        return None
    form = form_of(served.tokenizer.template_text(offer.definitions))
    if form is None:
        raise InvalidRequest(
            "tools", "offering tools to this model", "its chat template shows no form of calls that we know"
        )
    return Calling(offer, form)


def content_schema(asked: Asked | None) -> str | None:
    """The JSON schema of an answer that calls nothing."""
    if asked is None:
        return None
    kind, _, body = asked.spec.partition(":")
    if kind not in ("json", "compact"):
        raise InvalidRequest(asked.field, "this form with tools", "beside tools an answer can be held to JSON alone")
    return with_options(body, COMPACT_OPTIONS) if kind == "compact" else body


async def lenient(served: Served, offer: Offer) -> Offer:
    """The offer with what its schemas can be kept to: a tool that is not strict may have one that says too much."""
    tools = [await _kept(served, index, tool) for index, tool in enumerate(offer.tools)]
    return replace(offer, tools=tuple(tools))


async def _kept(served: Served, index: int, tool: Tool) -> Tool:
    if tool.parameters == ANYTHING:
        return tool
    try:
        await served.verdicts.check(f"json:{tool.parameters}", f"tools[{index}].function.parameters")
    except InvalidRequest:
        if tool.strict:
            raise
        return replace(tool, parameters=ANYTHING)
    return tool


def audible(served: Served, params: SamplingParams) -> SamplingParams:
    """Where a tokenizer calls the marks of a call special, they must be heard all the same."""
    tokenizer = served.tokenizer
    silent = any(tokenizer.id_of(mark) in tokenizer.special_ids for mark in MARKS)
    return replace(params, skip_special_tokens=False) if silent else params
