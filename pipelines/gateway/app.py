"""The gateway as one ASGI app: layers around routes.

`create` is the only way in. Knows neither Ray nor how its models came about.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from actors.client import Client
from cluster.telemetry.metrics import Metrics
from pipelines.chat import Served
from pipelines.gateway.asgi import App, Receive, Scope, Send
from pipelines.gateway.desk import Desk, Keys, Registry, Releases
from pipelines.gateway.middleware import wrap
from pipelines.gateway.middleware.routing import ROUTE
from pipelines.gateway.pace import Pace
from pipelines.gateway.settings import GatewaySettings
from pipelines.gateway.shelf import Shelf
from pipelines.routing.guide import Guide


def create(
    models: Mapping[str, Served],
    keys: Keys,
    settings: GatewaySettings | None = None,
    metrics: Metrics | None = None,
    waiting: Callable[[], Mapping[str, str]] = dict,
    registry: Registry | None = None,
    guide: Guide | None = None,
    releases: Releases | None = None,
) -> App:
    """The app that serves `models` to the holders of `keys`.

    `models` may change while the app runs; it is looked at with every request. `waiting` says of which models gangs
    wait for a place, and why. `registry` is asked what comes to /v1/registry. `guide` says which version of a model
    answers, `releases` changes that.
    """
    settled = settings or GatewaySettings()
    pace, shelf = Pace(settled.events_per_second), Shelf(settled.resume_seconds, settled.resumable_streams)
    made = Desk(
        models, keys, metrics or Metrics(), settled, pace, shelf, registry=registry, waiting=waiting, releases=releases
    )
    return assemble(made if guide is None else replace(made, guide=guide))


def assemble(desk: Desk) -> App:
    """The app of a desk."""
    for name, served in desk.models.items():
        follow(desk.metrics, name, served.client)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        await scope[ROUTE].endpoint(desk, scope, receive, send)

    http = wrap(desk, dispatch)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await live(receive, send)
        else:  # a websocket: there are none
            await send({"type": "websocket.close", "code": 1003})

    return app


def follow(metrics: Metrics, name: str, client: Client) -> None:
    """Have a model's loads shown whenever somebody scrapes."""
    metrics.follow(name, lambda: client.loads, lambda: client.ready)


async def live(receive: Receive, send: Send) -> None:
    """Say yes to the server's start and stop; nothing here needs either."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return
