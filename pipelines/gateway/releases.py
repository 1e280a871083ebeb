"""The doors to routes and rollouts: look at one, set or begin it, pause, resume, abort, promote.

Knows bodies and who asks. What is decided is the controller's, which may be in another process.
"""

from typing import Any

from cluster.errors import InvalidRequest, NotFound, sent
from pipelines.gateway.asgi import Receive, Scope, Send, exchange, respond_json
from pipelines.gateway.body import read_body
from pipelines.gateway.desk import Desk, Releases
from pipelines.gateway.strict import parse


async def routes(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/routes."""
    await respond_json(send, 200, listing(await there(desk).routes()))


async def route(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/routes/{model}: one, as it may be set again, with who set it."""
    await respond_json(send, 200, await there(desk).route(exchange(scope).tail))


async def reroute(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """PUT /v1/routes/{model}: weights, rules and shadow, whole."""
    asked, noted = parse(await read_body(scope, receive, desk.settings)), exchange(scope)
    await respond_json(send, 200, await there(desk).reroute(noted.tail, asked, noted.principal.name))


async def rollouts(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/rollouts: newest first."""
    await respond_json(send, 200, listing(await there(desk).rollouts()))


async def rollout(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/rollouts/{id}: one, with its audit."""
    await respond_json(send, 200, await there(desk).rollout(exchange(scope).tail))


async def begin(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/rollouts."""
    asked = parse(await read_body(scope, receive, desk.settings))
    if not isinstance(asked.get("dry_run", False), bool):
        raise InvalidRequest("dry_run", sent(asked["dry_run"]), "it is true or false")
    await respond_json(send, 200, await there(desk).start(asked, exchange(scope).principal.name))


async def command(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/rollouts/{id} with `{"action": ...}`."""
    body = parse(await read_body(scope, receive, desk.settings))
    verb = body.get("action")
    for name in body.keys() - {"action"}:
        raise InvalidRequest(name, "this unknown field", "give action alone")
    if not isinstance(verb, str):
        raise InvalidRequest("action", sent(verb), "give pause, resume, abort or promote")
    noted = exchange(scope)
    await respond_json(send, 200, await there(desk).command(noted.tail, verb, noted.principal.name))


def listing(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A list as OpenAI's API has it."""
    return {"object": "list", "data": rows}


def there(desk: Desk) -> Releases:
    """Who decides. Raises NotFound where no model has versions."""
    if desk.releases is None:
        raise NotFound("model with versions", "here", ())
    return desk.releases
