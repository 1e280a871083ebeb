"""Who asks, by the bearer key, and whether that is enough for the route."""

from cluster.errors import Unauthenticated
from cluster.security.keys import UNKNOWN
from cluster.security.policy import require
from pipelines.gateway.asgi import App, Receive, Scope, Send, exchange, header
from pipelines.gateway.desk import Desk
from pipelines.gateway.middleware.routing import ROUTE
from pipelines.gateway.routes import Route


def identity(desk: Desk, app: App) -> App:
    """The last layer before an endpoint."""

    async def identified(scope: Scope, receive: Receive, send: Send) -> None:
        route: Route = scope[ROUTE]
        if route.permission is not None:
            principal = desk.keys.verify(bearer(header(scope, b"authorization")))
            exchange(scope).principal = principal
            require(principal, route.permission)
        await app(scope, receive, send)

    return identified


def bearer(value: bytes) -> str:
    """The key of a bearer header. Raises Unauthenticated for any other header, in the words of an unknown key."""
    scheme, _, key = value.partition(b" ")
    if scheme.lower() != b"bearer" or not key:
        raise Unauthenticated(UNKNOWN)
    return key.decode("latin-1")
