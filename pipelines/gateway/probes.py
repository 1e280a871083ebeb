"""The doors that make no tokens: models, health, readiness, metrics.

`/health` says that this process answers and asks nobody; `/ready` says whether models do.
"""

import prometheus_client

from pipelines.chat import Served
from pipelines.gateway.asgi import Receive, Scope, Send, exchange, respond, respond_json
from pipelines.gateway.desk import Desk
from pipelines.routing.guide import full


def card(served: Served) -> dict[str, object]:
    """A model in OpenAI's shape. `max_model_len` is vLLM's field; a model that is still starting has none yet.

    `strata`: which version of the registry it is, where it is one.
    """
    made: dict[str, object] = {
        "id": served.name, "object": "model", "created": served.created, "owned_by": "strata",
        **({"strata": dict(served.client.registry)} if served.client.registry else {}),
    }  # fmt: skip
    return made | ({"max_model_len": served.client.context_tokens} if served.client.ready else {})


async def models(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/models."""
    named = sorted({*desk.models, *desk.guide.routes})
    await respond_json(send, 200, {"object": "list", "data": [listed(desk, name) for name in named]})


def listed(desk: Desk, name: str) -> dict[str, object]:
    """The card of a model, or of a name with a route: that of the version that most users have, with all that answer.

    Raises NotFound.
    """
    route = desk.guide.routes.get(name)
    if route is None:
        return card(desk.served(name))
    shown = desk.served(full(name, max(route.weights, key=lambda version: route.weights[version])))
    return card(shown) | {"id": name, "versions": sorted(route.answering)}


async def model(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/models/{id}."""
    await respond_json(send, 200, listed(desk, exchange(scope).tail))


async def health(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /health."""
    await respond_json(send, 200, {"status": "ok"})


async def ready(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /ready: 200 when every model has a replica that made a token through all its ranks, or sleeps; else 503.

    With the reason where gangs wait for a place.
    """
    states = {name: served.client.ready for name, served in sorted(desk.models.items())}
    all_ready = all(states.values())
    more = () if all_ready else ((b"retry-after", b"1"),)
    waiting = desk.waiting()
    body = {"ready": all_ready, "models": states} | ({"waiting": waiting} if waiting else {})
    await respond_json(send, 200 if all_ready else 503, body, more)


async def metrics(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /metrics."""
    await respond(send, 200, desk.metrics.text(), prometheus_client.CONTENT_TYPE_PLAIN_0_0_4.encode())
