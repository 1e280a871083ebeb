"""What every request passes, in order: one list of functions that each wrap an ASGI app.

Each takes the desk and the app within. What works on the request as HTTP (rate, audit, traces) takes its place in
this list; what works on a turn (guardrails, context, version routing, answer cache) does so in `generate`.
"""

from collections.abc import Callable

from pipelines.gateway.asgi import App
from pipelines.gateway.desk import Desk
from pipelines.gateway.middleware.access import access
from pipelines.gateway.middleware.failing import failing
from pipelines.gateway.middleware.headers import headers
from pipelines.gateway.middleware.identity import identity
from pipelines.gateway.middleware.naming import naming
from pipelines.gateway.middleware.routing import routing

Layer = Callable[[Desk, App], App]

LAYERS: tuple[Layer, ...] = (
    naming,  # a request id, and the exchange that the rest fill in
    access,  # one log record and the HTTP metrics, whatever happens within
    failing,  # errors become answers
    headers,  # what no request may carry
    routing,  # the path as sent decides where it goes ...
    identity,  # ... and what permission that takes
)


def wrap(desk: Desk, app: App) -> App:
    """`app` within all layers; the first of the list is the outermost."""
    for layer in reversed(LAYERS):
        app = layer(desk, app)
    return app
