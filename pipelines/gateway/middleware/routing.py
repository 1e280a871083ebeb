"""Find the route of the path as sent and call its endpoint's layers; the endpoint itself is `dispatch`."""

from pipelines.gateway.asgi import App, Receive, Scope, Send, exchange
from pipelines.gateway.desk import Desk
from pipelines.gateway.routes import match, sent_path

ROUTE = "strata.route"


def routing(desk: Desk, app: App) -> App:  # noqa: ARG001
    """Before identity, which asks for the permission that the route names."""

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        noted = exchange(scope)
        route, noted.tail, noted.named = match(scope["method"], sent_path(scope))
        noted.route = route.path
        scope[ROUTE] = route
        await app(scope, receive, send)

    return routed
