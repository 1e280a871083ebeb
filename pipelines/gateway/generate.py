"""`/v1/chat/completions` and `/v1/completions`: body in, answer or events out.

Knows the wire and the spine. What is measured stands in `meter`, what is parsed in `wire`, how it looks in `shapes`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from hashlib import blake2b

from actors.engine.tokens import Detokenizer
from actors.messages import SamplingParams
from cluster.errors import DeadlineExceeded, InvalidRequest
from cluster.scheduling.admission import LEAST_URGENT
from pipelines.chat import Answer, Part, Served, Turn, answer
from pipelines.gateway.asgi import Exchange, Receive, Scope, Send, exchange, header, respond
from pipelines.gateway.attend import attended
from pipelines.gateway.body import read_body
from pipelines.gateway.callshape import CallShape
from pipelines.gateway.desk import Desk
from pipelines.gateway.meter import TurnMeter
from pipelines.gateway.mirror import SAID, SECONDS
from pipelines.gateway.prompt import chat_tokens, least, spoken, text_tokens
from pipelines.gateway.shapes import ChatShape, Shape, TextShape
from pipelines.gateway.shaping import calling_of, constrained
from pipelines.gateway.shelf import Kept, Pen
from pipelines.gateway.strict import parse
from pipelines.gateway.ways import travel, way_of
from pipelines.gateway.wire import CompletionRequest, Wanted, chat_request, completion_request
from pipelines.routing.guide import Witness

EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


async def chat(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/chat/completions."""
    begun = desk.clock()
    body = await read_body(scope, receive, desk.settings)
    if await taken_up(desk, scope, receive, send, body):
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
        envelope = (f"chatcmpl-{exchange(scope).id}", int(desk.wall()), request.model, served.tokenizer)
        shape = CallShape(*envelope, calling=calling) if calling else ChatShape(*envelope)
        to = Reply(served, turn, shape, request, terms, owner_of(scope, body), witness)
        await reply(desk, scope, receive, send, to)

    await travel(desk, scope, way, ask, mirrored(desk, request, prepare))


async def complete(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/completions."""
    begun = desk.clock()
    body = await read_body(scope, receive, desk.settings)
    if await taken_up(desk, scope, receive, send, body):
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
        shape = TextShape(f"cmpl-{exchange(scope).id}", int(desk.wall()), request.model, served.tokenizer)
        if request.echo:
            shape.echoes = echoed(served, request, turn.prompts)
        to = Reply(served, turn, shape, request, terms, owner_of(scope, body), witness)
        await reply(desk, scope, receive, send, to)

    await travel(desk, scope, way, ask, mirrored(desk, request, prepare))


@dataclass(frozen=True, slots=True)
class Terms:
    """How urgent a request is, and until when its answer is wanted: `seconds` from its coming, on the desk's clock."""

    priority: int
    until: float
    seconds: float


def mirrored(
    desk: Desk, request: Wanted, prepare: Callable[[Served, Terms], Awaitable[Turn]]
) -> Callable[[Served], Awaitable[Turn]] | None:
    """What makes the turn of a shadow: the least urgent there is. None for what has several answers."""
    if request.params.n > 1 or len(getattr(request, "prompts", ())) > 1:
        return None

    async def shadowed(served: Served) -> Turn:
        return await prepare(served, Terms(LEAST_URGENT, desk.clock() + SECONDS, SECONDS))

    return shadowed


@dataclass(frozen=True, slots=True)
class Reply:
    """A turn about to be answered, and how."""

    served: Served
    turn: Turn
    shape: Shape
    request: Wanted
    terms: Terms
    owner: tuple[str, bytes]
    witness: Witness


def owner_of(scope: Scope, body: bytes) -> tuple[str, bytes]:
    """Whose a stream is: a principal's, for this request."""
    return exchange(scope).principal.id, blake2b(body, digest_size=16).digest()


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


async def begin(desk: Desk, to: Reply) -> Answer:
    """The turn, submitted and metered."""
    metrics = desk.metrics.model(to.served.name)
    metrics.prompt_tokens.observe(sum(map(len, to.turn.prompts)))
    to.witness.figures = meter = TurnMeter(metrics, desk.clock)
    begun = await answer(to.served, to.turn, meter)
    if to.witness.way.shadow:
        begun.keep(SAID)
    return begun


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


async def stream(desk: Desk, noted: Exchange, send: Send, to: Reply) -> None:
    """The answer as events. What fails before the first of them still has a status of its own."""
    begun = await begin(desk, to)
    try:
        async with aclosing(begun.parts()) as batches:
            opening = b"".join(map(to.shape.event, await anext(batches)))
            await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
            kept = desk.shelf.keep(noted.id, to.owner, begun, to.shape)
            await flow(desk, send, Pen(desk.shelf, kept, to.shape, begun), batches, opening)
        testify(to, begun)
    finally:
        note(noted, begun)


async def flow(
    desk: Desk, send: Send, pen: Pen, batches: AsyncGenerator[list[Part]], opening: bytes, resumed: bytes = b""
) -> None:
    """`opening`, which is an event yet to be numbered, or `resumed`, and all that is left of the answer."""
    event = pen.shape.event
    with pen as numbered:
        await send(chunk(resumed or numbered(opening)))
        with desk.pace.stream() as gait:
            async for batch in batches:
                events = event(batch[0]) if len(batch) == 1 else b"".join(map(event, batch))
                if events:  # the beginning of a call may have to wait for more
                    await send(chunk(numbered(events)))
                await gait.rest()
        await send(chunk(pen.end(), more=False))


async def taken_up(desk: Desk, scope: Scope, receive: Receive, send: Send, body: bytes) -> bool:
    """Whether this was a request to go on with a stream that was cut; then it has been answered."""
    last = header(scope, b"last-event-id")
    if not last:
        return False
    kept, number = desk.shelf.take(last.decode("latin-1"), owner_of(scope, body))
    noted = exchange(scope)
    noted.model, seconds = kept.shape.model, desk.settings.request_seconds
    await attended(again(desk, send, kept, number), receive, kept.shape.model, seconds, seconds)
    return True


async def again(desk: Desk, send: Send, kept: Kept, number: int) -> None:
    """What came after event `number`, and the rest as it comes."""
    await kept.free()
    missed = kept.after(number)
    pen = Pen(desk.shelf, kept, kept.shape, kept.begun)
    async with aclosing(kept.begun.parts()) as batches:
        with pen:  # nobody else may have it while this one begins
            await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
            if kept.whole:
                await send(chunk(missed, more=False))
                return
        await flow(desk, send, pen, batches, b"", missed)


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


def chunk(body: bytes, more: bool = True) -> dict[str, object]:
    """An ASGI body message."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def testify(to: Reply, begun: Answer) -> None:
    """Say of an answer that is whole what its version is judged by."""
    first = begun.voices[0]
    to.witness.done(first.head, first.finish == "length", first.tokens)


def note(noted: Exchange, begun: Answer) -> None:
    """What the access log tells of a turn."""
    noted.notes = {"prompt_tokens": begun.usage.prompt, "completion_tokens": begun.usage.completion}
