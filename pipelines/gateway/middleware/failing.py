"""Turn what is raised into an answer: an error object, or the last event of a stream that has begun."""

import logging

from cluster.errors import StrataError
from pipelines.gateway.asgi import App, Receive, Scope, Send, exchange, respond_json
from pipelines.gateway.body import ClientGone
from pipelines.gateway.desk import Desk
from pipelines.gateway.failures import body_of, event_of, headers_of, named, status_of

log = logging.getLogger("strata.gateway")


def failing(desk: Desk, app: App) -> App:  # noqa: ARG001
    """Around everything that can raise."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except ClientGone:
            pass  # nobody is left to answer
        except StrataError as error:
            await tell(scope, send, error)
        except Exception as error:
            if named(error) is None:
                log.exception("unexpected", extra={"request_id": exchange(scope).id})
            await tell(scope, send, error)

    return answered


async def tell(scope: Scope, send: Send, error: Exception) -> None:
    """Say what went wrong in the way that is still open."""
    if exchange(scope).status:
        await send({"type": "http.response.body", "body": event_of(error), "more_body": False})
    else:
        await respond_json(send, status_of(error), body_of(error), headers_of(error))
