"""The ASGI vocabulary, and the one value that travels with a request through the layers.

Knows HTTP as ASGI tells it. Knows no endpoint and no model.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from cluster.security.keys import Principal

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

NOBODY = Principal("", "", "", "")
KEY = "strata.exchange"  # where `Exchange` stands in the scope


@dataclass(slots=True)
class Exchange:
    """What the layers have found out about one request. Made by the first of them, filled by the rest."""

    id: str
    route: str = "unrouted"  # the template, never the path as sent: it is a metric label and a log field
    tail: str = ""  # what a route's last segment holds
    named: Mapping[str, str] = field(default_factory=dict)  # what a route's named segments hold
    principal: Principal = NOBODY
    status: int = 0
    body_read: bool = False
    model: str = ""
    version: str = ""  # of a model that has several: the one that answers
    notes: dict[str, Any] = field(default_factory=dict)


def exchange(scope: Scope) -> Exchange:
    """The exchange of this request."""
    found: Exchange = scope[KEY]
    return found


def header(scope: Scope, name: bytes) -> bytes:
    """The first header of that lower-case name, or nothing."""
    return next((value for key, value in scope["headers"] if key == name), b"")


async def respond(send: Send, status: int, body: bytes, kind: bytes = b"application/json", more: Headers = ()) -> None:
    """A whole response in one go."""
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, value: Any, more: Headers = ()) -> None:
    """A whole JSON response. NaN would be no JSON and raises."""
    await respond(send, status, json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), more=more)
