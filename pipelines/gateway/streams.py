"""An answer as server-sent events: begun, taken up where it was cut, or made again for who has its beginning.

Knows shelves and marks. Knows nothing of how a request is read.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from cluster.errors import NotFound
from pipelines.chat import Part
from pipelines.gateway.asgi import Exchange, Receive, Scope, Send, exchange, header
from pipelines.gateway.attend import attended
from pipelines.gateway.desk import Desk
from pipelines.gateway.regain import Last, Mark, lacking
from pipelines.gateway.reply import Reply, begin, note, owner_of, testify
from pipelines.gateway.shelf import Kept, Pen

EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


def last_of(scope: Scope) -> Last | None:
    """The last event that a client has of a stream that was cut. Raises InvalidRequest."""
    told = header(scope, b"last-event-id")
    return Last.read(told.decode("latin-1")) if told else None


def called(desk: Desk, scope: Scope, last: Last | None) -> tuple[str, int]:
    """The name of an answer and when it began, in seconds since 1970."""
    if last is None or last.mark is None:
        return exchange(scope).id, int(desk.wall())
    return last.name, last.mark.created


async def stream(desk: Desk, noted: Exchange, send: Send, to: Reply) -> None:
    """The answer as events. What fails before the first of them still has a status of its own."""
    if to.last is not None:
        to = renewed(to, to.last)
    begun = await begin(desk, to)
    mark = Mark.of(to.turn.seed, to.shape.created, to.whose, len(begun.voices))
    batches, sent = begun.parts(), 0
    if to.last is not None and to.last.mark is not None:  # as `renewed` has seen to
        mark, sent = to.last.mark, to.last.number
        begun.cuts, begun.lacking = mark.cuts, lacking(begun.voices, mark, to.shape.event)
    try:
        async with aclosing(batches):
            opening: list[Part] = await anext(batches, [])
            await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
            kept = desk.shelf.keep(to.name, to.owner, begun, to.shape, mark, sent)
            await flow(desk, send, Pen(desk.shelf, kept, to.shape, begun), batches, opening)
        testify(to, begun)
    finally:
        note(noted, begun)


def renewed(to: Reply, last: Last) -> Reply:
    """The turn that is made again from its beginning, by the seed it had. Raises NotFound where it is another."""
    mark, choices = last.mark, len(to.turn.prompts) * to.turn.params.n
    if mark is None or mark.whose != to.whose or len(mark.places) != choices:
        raise NotFound("stream", last.name)  # a stranger learns nothing of whose it is
    return replace(to, turn=replace(to.turn, seed=mark.seed))


async def flow(
    desk: Desk,
    send: Send,
    pen: Pen,
    batches: AsyncGenerator[list[Part]],
    opening: Sequence[Part] = (),
    resumed: bytes = b"",
) -> None:
    """`opening`, or `resumed`, which are events already, and all that is left of the answer."""
    with pen as events_of:
        await send(chunk(resumed or events_of(opening)))
        with desk.pace.stream() as gait:
            async for batch in batches:
                if events := events_of(batch):
                    await send(chunk(events))
                await gait.rest()
        await send(chunk(pen.end(), more=False))


async def taken_up(desk: Desk, scope: Scope, receive: Receive, send: Send, body: bytes, last: Last) -> bool:
    """Whether the stream is kept here; then what its client lacks of it has been sent.

    Raises NotFound where it is not, and cannot be made again either.
    """
    kept = desk.shelf.find(last.name, owner_of(scope, body))
    if kept is None:
        if last.mark is None:
            raise NotFound("stream", last.name)
        return False
    noted = exchange(scope)
    noted.model, seconds = kept.shape.model, desk.settings.request_seconds
    await attended(again(desk, send, kept, last.number), receive, kept.shape.model, seconds, seconds)
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
        await flow(desk, send, pen, batches, resumed=missed)


def chunk(body: bytes, more: bool = True) -> dict[str, object]:
    """An ASGI body message."""
    return {"type": "http.response.body", "body": body, "more_body": more}
