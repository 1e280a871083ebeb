"""Turn what is raised into an answer: an error object, or the last event of a stream that has begun."""

import asyncio
import logging
from contextlib import suppress

from pipelines.gateway.asgi import App, Receive, Scope, Send, exchange, respond_json
from pipelines.gateway.body import ClientGone, drain
from pipelines.gateway.desk import Desk
from pipelines.gateway.failures import BadHeaders, BodyTooSlow, body_of, event_of, headers_of, named, status_of

log = logging.getLogger("strata.gateway")
DRAINED_BODIES = 4  # how many times the body limit is read and thrown away for a client that is refused
HANG_UP = (BadHeaders, BodyTooSlow)  # what follows on such a connection cannot be trusted to be a request


def failing(desk: Desk, app: App) -> App:
    """Around everything that can raise."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except ClientGone:
            pass  # nobody is left to answer
        except Exception as error:  # the last line: what nobody foresaw must end as an answer, too
            if named(error) is None:
                log.exception("unexpected", extra={"request_id": exchange(scope).id})
            with suppress(TimeoutError):  # a client that does not read is not told; the server closes on it
                await tell(desk, scope, receive, send, error)

    return answered


async def tell(desk: Desk, scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    """Say what went wrong in the way that is still open. Raises TimeoutError when nobody takes it."""
    patience = desk.settings.farewell_seconds
    if exchange(scope).status:
        async with asyncio.timeout(patience):
            await send({"type": "http.response.body", "body": event_of(error), "more_body": False})
        return
    headers = headers_of(error)
    limit = desk.settings.body_bytes * DRAINED_BODIES
    hang_up = isinstance(error, HANG_UP)
    if hang_up or not await drain(scope, receive, limit, patience):
        headers.append((b"connection", b"close"))
    async with asyncio.timeout(patience):
        await respond_json(send, status_of(error), body_of(error), headers)
