"""`/v1/chat/completions` and `/v1/completions`: body in, answer or events out.

Knows the wire and the spine. What is measured stands in `meter`, what is parsed in `wire`, how it looks in `shapes`,
and how events travel in `streams`.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from actors.engine.tokens import Detokenizer
from actors.messages import SamplingParams
from cluster.errors import DeadlineExceeded, InvalidRequest
from cluster.scheduling.admission import LEAST_URGENT
from pipelines.chat import Part, Served, Turn
from pipelines.gateway.asgi import Exchange, Receive, Scope, Send, exchange, respond
from pipelines.gateway.attend import attended
from pipelines.gateway.body import read_body
from pipelines.gateway.callshape import CallShape
from pipelines.gateway.desk import Desk
from pipelines.gateway.mirror import SECONDS
from pipelines.gateway.prompt import chat_tokens, least, spoken, text_tokens
from pipelines.gateway.reply import Reply, Terms, begin, note, owner_of, testify
from pipelines.gateway.shapes import ChatShape, TextShape
from pipelines.gateway.shaping import calling_of, constrained
from pipelines.gateway.streams import called, last_of, stream, taken_up
from pipelines.gateway.strict import parse
from pipelines.gateway.ways import travel, way_of
from pipelines.gateway.wire import CompletionRequest, Wanted, chat_request, completion_request
from pipelines.routing.guide import Witness


async def chat(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/chat/completions."""
    begun = desk.clock()
    body = await read_body(scope, receive, desk.settings)
    last = last_of(scope)
    if last is not None and await taken_up(desk, scope, receive, send, body, last):
        return
    request = chat_request(parse(body), desk.settings)
    texts = [text for message in request.messages for text in spoken(message)]
    way = way_of(desk, scope, request, texts)
    terms = terms_of(desk, scope, request, begun)

    async def prepare(served: Served, terms: Terms) -> Turn:
        let_in(desk, served, terms, least(texts))
        calling = calling_of(served, request.offer)
        params = await constrained(served, request.params, request.form, calling)
        prompt = await chat_tokens(served, request.messages, calling.offer.definitions if calling else ())
        return turn_of(desk, scope, terms, params, (prompt,), "messages")

    async def ask(served: Served, witness: Witness) -> None:
        turn = await prepare(served, terms)
        calling = calling_of(served, request.offer)
        name, created = called(desk, scope, last)
        envelope = (f"chatcmpl-{name}", created, request.model, served.tokenizer)
        shape = CallShape(*envelope, calling=calling) if calling else ChatShape(*envelope)
        to = Reply(served, turn, shape, request, terms, owner_of(scope, body), witness, name, last)
        await reply(desk, scope, receive, send, to)

    await travel(desk, scope, way, ask, mirrored(desk, request, prepare))


async def complete(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/completions."""
    begun = desk.clock()
    body = await read_body(scope, receive, desk.settings)
    last = last_of(scope)
    if last is not None and await taken_up(desk, scope, receive, send, body, last):
        return
    request = completion_request(parse(body), desk.settings)
    way = way_of(desk, scope, request, request.prompts)
    terms = terms_of(desk, scope, request, begun)

    async def prepare(served: Served, terms: Terms) -> Turn:
        let_in(desk, served, terms, least(request.prompts))
        params = await constrained(served, request.params, request.form, None)
        prompts = tuple([await text_tokens(served, prompt) for prompt in request.prompts])
        return turn_of(desk, scope, terms, params, prompts, "prompt")

    async def ask(served: Served, witness: Witness) -> None:
        turn = await prepare(served, terms)
        name, created = called(desk, scope, last)
        shape = TextShape(f"cmpl-{name}", created, request.model, served.tokenizer)
        if request.echo:
            shape.echoes = echoed(served, request, turn.prompts)
        to = Reply(served, turn, shape, request, terms, owner_of(scope, body), witness, name, last)
        await reply(desk, scope, receive, send, to)

    await travel(desk, scope, way, ask, mirrored(desk, request, prepare))


def mirrored(
    desk: Desk, request: Wanted, prepare: Callable[[Served, Terms], Awaitable[Turn]]
) -> Callable[[Served], Awaitable[Turn]] | None:
    """What makes the turn of a shadow: the least urgent there is. None for what has several answers."""
    if request.params.n > 1 or len(getattr(request, "prompts", ())) > 1:
        return None

    async def shadowed(served: Served) -> Turn:
        return await prepare(served, Terms(LEAST_URGENT, desk.clock() + SECONDS, SECONDS))

    return shadowed


def terms_of(desk: Desk, scope: Scope, request: Wanted, begun: float) -> Terms:
    """What the request asks for, within what its key and the settings allow. Raises InvalidRequest."""
    most = exchange(scope).principal.priority
    priority = most if request.priority is None else request.priority
    if priority < most:
        raise InvalidRequest("priority", priority, f"this key may ask for {most} and more; lower is sooner")
    seconds = min(request.timeout or desk.settings.request_seconds, desk.settings.request_seconds)
    return Terms(priority, begun + seconds, seconds)


def let_in(desk: Desk, served: Served, terms: Terms, tokens: int) -> None:
    """Raises DeadlineExceeded, or Overloaded where its turn would come too late.

    Before anything is spent on it: at several times the load that can be served, most of what comes ends here.
    """
    left = terms.until - desk.clock()
    if left <= 0:
        raise DeadlineExceeded(served.name, terms.seconds)
    served.client.admit(tokens, priority=terms.priority, deadline=left)


def turn_of(
    desk: Desk,
    scope: Scope,
    terms: Terms,
    params: SamplingParams,
    prompts: tuple[tuple[int, ...], ...],
    field: str,
) -> Turn:
    """The turn that a request asks for. Without a seed, chance gives one; a tenant's prefixes are its own."""
    seed = params.seed
    return Turn(
        prompts,
        params,
        desk.draw(63) if seed is None else seed,
        field,
        continues=field == "prompt",
        salt=exchange(scope).principal.tenant,
        priority=terms.priority,
        deadline_seconds=max(0.0, terms.until - desk.clock()),
    )


async def reply(desk: Desk, scope: Scope, receive: Receive, send: Send, to: Reply) -> None:
    """Answer, or be cut off: by the client's going or by the deadline."""
    to.shape.include_usage = to.request.include_usage
    to.shape.logprobs = to.request.params.logprobs is not None
    noted = exchange(scope)
    noted.model = to.served.name
    deliver = stream if to.request.stream else whole
    seconds, left = to.terms.seconds, to.terms.until - desk.clock()
    await attended(deliver(desk, noted, send, to), receive, to.served.name, seconds, left)


async def whole(desk: Desk, noted: Exchange, send: Send, to: Reply) -> None:
    """The answer in one piece."""
    begun = await begin(desk, to)
    choices: list[list[Part]] = [[] for _ in begun.voices]
    async with aclosing(begun.parts()) as batches:
        async for batch in batches:
            for part in batch:
                choices[part.choice].append(part)
    note(noted, begun)
    testify(to, begun)
    await respond(send, 200, to.shape.whole(choices, begun.usage))


def echoed(served: Served, request: CompletionRequest, prompts: Sequence[Sequence[int]]) -> list[str]:
    """What precedes each choice: its prompt as it was sent, or as its tokens read."""
    unstopped = replace(request.params, stop=())  # a stop string in a prompt stops nothing

    def read(tokens: Sequence[int]) -> str:
        words = Detokenizer(served.tokenizer, unstopped)
        return words.push(tokens).text + words.flush().text

    texts = [
        sent if isinstance(sent, str) else read(tokens) for sent, tokens in zip(request.prompts, prompts, strict=True)
    ]
    return [text for text in texts for _ in range(request.params.n)]
