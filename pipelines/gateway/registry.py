"""/v1/registry: versions, aliases, stages and merge requests over HTTP.

Owns paths, fields of bodies and revisions in headers. What an act does and who may do it stands in `actors.registry`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from actors.registry.permissions import NEEDS
from cluster.errors import InvalidRequest, Unavailable, sent, shorten
from pipelines.gateway.asgi import Receive, Scope, Send, exchange, header, respond_json
from pipelines.gateway.attend import attended
from pipelines.gateway.body import read_body
from pipelines.gateway.desk import Desk
from pipelines.gateway.fields import nearest
from pipelines.gateway.strict import parse

BASE = "/v1/registry/models"
KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}
REVISION = "If-Match"


@dataclass(frozen=True, slots=True)
class Way:
    """One way in: what it does, and the fields of its body by type; a name with a `?` may be left out."""

    method: str
    path: str
    act: str
    fields: Mapping[str, type]
    revised: bool = False  # it has a revision: told in ETag, asked for in If-Match where it is changed
    query: Mapping[str, str] = field(default_factory=dict)  # what it has to say, by its name there and in the act

    @property
    def permission(self) -> str:
        return NEEDS[self.act]


_NOTHING: Mapping[str, type] = {}
_REQUEST = f"{BASE}/{{model}}/merge-requests/{{number}}"
WAYS = (
    Way("GET", BASE, "list_models", _NOTHING),
    Way("GET", f"{BASE}/{{model}}", "show_model", _NOTHING),
    Way("GET", f"{BASE}/{{model}}/versions", "list_versions", _NOTHING),
    Way("GET", f"{BASE}/{{model}}/versions/{{version}}", "show_version", _NOTHING),
    Way("PUT", f"{BASE}/{{model}}/versions/{{version}}/stage", "move_stage", {"stage": str, "expected?": str}),
    Way("GET", f"{BASE}/{{model}}/diff", "diff", _NOTHING, query={"from": "before", "to": "after"}),
    Way("GET", f"{BASE}/{{model}}/aliases", "list_aliases", _NOTHING),
    Way("GET", f"{BASE}/{{model}}/aliases/{{alias}}", "show_alias", _NOTHING, revised=True),
    Way("PUT", f"{BASE}/{{model}}/aliases/{{alias}}", "move_alias", {"version": str}, revised=True),
    Way("GET", f"{BASE}/{{model}}/aliases/{{alias}}/history", "alias_history", _NOTHING),
    Way("POST", f"{BASE}/{{model}}/aliases/{{alias}}/rollback", "rollback_alias", {"to?": str}),
    Way("GET", f"{BASE}/{{model}}/merge-requests", "list_requests", _NOTHING),
    Way("POST", f"{BASE}/{{model}}/merge-requests", "open_request",
        {"source": str, "title": str, "target?": str, "strategy?": str, "weight?": float}),
    Way("GET", _REQUEST, "show_request", _NOTHING),
    Way("POST", f"{_REQUEST}/reviews", "review_request", {"approves": bool, "comment?": str}),
    Way("POST", f"{_REQUEST}/evaluations", "evaluate_request", {"metrics": dict, "of?": str}),
    Way("POST", f"{_REQUEST}/merge", "merge_request", _NOTHING),
    Way("POST", f"{_REQUEST}/close", "close_request", _NOTHING),
    Way("POST", f"{_REQUEST}/reopen", "reopen_request", _NOTHING),
    Way("POST", "/v1/registry/search", "search", {"query": str, "limit?": int}),
)  # fmt: skip


def endpoint(way: Way) -> Callable[[Desk, Scope, Receive, Send], Awaitable[None]]:
    """The endpoint of one way in."""

    async def answered(desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
        given: dict[str, Any] = dict(exchange(scope).named)
        if "number" in given:
            given["number"] = _number(given["number"])
        given |= queried(scope, way.query)
        if way.method != "GET":
            given |= fields(await read_body(scope, receive, desk.settings), way.fields)
            if way.revised:
                given["revision"] = revision(scope)
        registry = desk.registry
        if registry is None:
            raise Unavailable("the registry", "this gateway was started without one")

        async def act() -> None:
            found = await registry(exchange(scope).principal, way.act, given)
            more = [(b"etag", f'"{found["revision"]}"'.encode())] if way.revised else []
            await respond_json(send, 200, found, more)

        seconds = desk.settings.request_seconds
        await attended(act(), receive, f"{way.act} of the registry", seconds, seconds)

    return answered


def fields(body: bytes, wanted: Mapping[str, type]) -> dict[str, Any]:
    """What a body says. Raises InvalidRequest naming the field that is unknown, missing or of another type."""
    said = parse(body) if body.strip() else {}
    kinds = {name.rstrip("?"): kind for name, kind in wanted.items()}
    for name in said:
        if name not in kinds:
            raise InvalidRequest(shorten(name, 64), "this unknown field", nearest(name, frozenset(kinds)))
    found = {name: value for name, value in said.items() if value is not None}
    for name in wanted:
        if not name.endswith("?") and name not in found:
            raise InvalidRequest(name, "nothing", f"send {KINDS[kinds[name]]}")
    for name, value in found.items():
        fits = isinstance(value, int | float) if kinds[name] is float else isinstance(value, kinds[name])
        if not fits or (isinstance(value, bool) and kinds[name] is not bool):
            raise InvalidRequest(name, sent(value), f"it is {KINDS[kinds[name]]}")
    return found


def queried(scope: Scope, wanted: Mapping[str, str]) -> dict[str, str]:
    """What the query says, each once. Raises InvalidRequest. Where nothing is wanted it is not looked at."""
    if not wanted:
        return {}
    said = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    names = [name for name, _ in said]
    for name in names:
        if name not in wanted:
            raise InvalidRequest(shorten(name, 64), "this unknown parameter", nearest(name, frozenset(wanted)))
    for name in wanted:
        if names.count(name) != 1 or not dict(said)[name]:
            raise InvalidRequest(name, "nothing, or twice", f"write ?{'&'.join(f'{each}=V' for each in wanted)}")
    return {wanted[name]: value for name, value in said}


def revision(scope: Scope) -> str | None:
    """What a change starts from: the revision of If-Match; None, for nothing yet, with If-None-Match: *."""
    match, none = (header(scope, name).decode("latin-1").strip() for name in (b"if-match", b"if-none-match"))
    if none == "*" and not match:
        return None
    plain = match.removeprefix('"').removesuffix('"')
    if none or not plain or '"' in plain or plain == "*":
        raise InvalidRequest(
            REVISION,
            match or none or "nothing",
            "send the ETag of the alias as it is, or If-None-Match: * for a new one",
        )
    return plain


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidRequest("number", text, "it is the number of a merge request")
    return int(text)
