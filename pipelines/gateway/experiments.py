"""The doors to A/B experiments: begin one, look, end it.

Knows bodies and who asks. What is counted and said is the controller's.
"""

from cluster.errors import InvalidRequest, NotFound, sent
from pipelines.gateway.asgi import Receive, Scope, Send, exchange, respond_json
from pipelines.gateway.body import read_body
from pipelines.gateway.desk import Desk
from pipelines.gateway.releases import listing, there
from pipelines.gateway.strict import parse


async def experiments(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/experiments: newest first."""
    await respond_json(send, 200, listing(await there(desk).experiments()))


async def experiment(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """GET /v1/experiments/{id}."""
    name, known = exchange(scope).tail, await there(desk).experiments()
    found = next((each for each in known if each["name"] == name), None)
    if found is None:
        raise NotFound("experiment", name, tuple(each["name"] for each in known))
    await respond_json(send, 200, found)


async def begin(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/experiments."""
    asked = parse(await read_body(scope, receive, desk.settings))
    await respond_json(send, 200, await there(desk).experiment(asked, exchange(scope).principal.name))


async def end(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/experiments/{id} with `{"action": "end"}`, and `keep`, the version that all users get."""
    body, noted = parse(await read_body(scope, receive, desk.settings)), exchange(scope)
    for name in body.keys() - {"action", "keep"}:
        raise InvalidRequest(name, "this unknown field", "give action and keep")
    keep = body.get("keep")
    if body.get("action") != "end":
        raise InvalidRequest("action", sent(body.get("action")), "give end")
    if keep is not None and not isinstance(keep, str):
        raise InvalidRequest("keep", sent(keep), "name a version, or leave it out")
    await respond_json(send, 200, await there(desk).end(noted.tail, keep, noted.principal.name))
