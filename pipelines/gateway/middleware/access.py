"""One log record and one count for every request. Neither holds a path as sent, a key or a text."""

import logging

from pipelines.gateway.asgi import App, Receive, Scope, Send, exchange
from pipelines.gateway.desk import Desk
from pipelines.gateway.routes import VERBS

log = logging.getLogger("strata.gateway")
GONE = 499  # nginx's status for a client that closed the connection before an answer began


def access(desk: Desk, app: App) -> App:
    """Around everything that can answer."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        begun = desk.clock()
        noted = exchange(scope)
        desk.metrics.in_flight.inc()
        try:
            await app(scope, receive, send)
        finally:
            desk.metrics.in_flight.dec()
            seconds = desk.clock() - begun
            method = scope["method"] if scope["method"] in VERBS else "other"
            desk.metrics.answered(noted.route, method, noted.status or GONE, seconds)
            log.info(
                "request",
                extra={
                    "request_id": noted.id,
                    "route": noted.route,
                    "method": method,
                    "status": noted.status or GONE,
                    "seconds": round(seconds, 6),
                    "principal": noted.principal.id,
                    "model": noted.model,
                    **noted.notes,
                },
            )

    return counted
