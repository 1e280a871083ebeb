"""Give every request an id and tell it to the client. A client's own is taken if it is a plain word."""

import re
import secrets

from pipelines.gateway.asgi import KEY, App, Exchange, Message, Receive, Scope, Send, header
from pipelines.gateway.desk import Desk

PLAIN = re.compile(rb"[A-Za-z0-9._\-]{1,64}")


def naming(desk: Desk, app: App) -> App:  # noqa: ARG001
    """The outermost layer."""

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        given = header(scope, b"x-request-id")
        noted = Exchange(given.decode() if PLAIN.fullmatch(given) else secrets.token_hex(12))
        stamp = (
            (b"x-request-id", noted.id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
        )

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted.status = message["status"]
                version = ((b"x-strata-version", noted.version.encode()),) if noted.version else ()
                message["headers"] = [*message["headers"], *stamp, *version]
            await send(message)

        scope[KEY] = noted
        await app(scope, receive, stamped)

    return named
