"""Which path and verb lead where, and what permission that takes: one table, matched on the path as sent.

A path is taken literally: no trailing slash, no double slash, no percent sign except in a model's name. What is
not in the table does not exist.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from cluster.errors import NotFound
from pipelines.gateway import experiments, feedback, generate, probes, registry, releases
from pipelines.gateway.asgi import Receive, Scope, Send
from pipelines.gateway.desk import Desk
from pipelines.gateway.failures import MethodNotAllowed

Endpoint = Callable[[Desk, Scope, Receive, Send], Awaitable[None]]
VERBS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # the rest is no metric label


@dataclass(frozen=True, slots=True)
class Route:
    """One way in. A path that ends in `{id}` takes the rest of the path, any other name in braces one segment.

    `permission` None: open to everybody.
    """

    method: str
    path: str
    endpoint: Endpoint
    permission: str | None


ROUTES = (
    Route("POST", "/v1/chat/completions", generate.chat, "generate"),
    Route("POST", "/v1/completions", generate.complete, "generate"),
    Route("GET", "/v1/models", probes.models, "models.read"),
    Route("GET", "/v1/models/{id}", probes.model, "models.read"),
    Route("GET", "/v1/routes", releases.routes, "releases.read"),
    Route("GET", "/v1/routes/{id}", releases.route, "releases.read"),
    Route("PUT", "/v1/routes/{id}", releases.reroute, "releases.write"),
    Route("GET", "/v1/rollouts", releases.rollouts, "releases.read"),
    Route("POST", "/v1/rollouts", releases.begin, "releases.write"),
    Route("GET", "/v1/rollouts/{id}", releases.rollout, "releases.read"),
    Route("POST", "/v1/rollouts/{id}", releases.command, "releases.write"),
    Route("GET", "/v1/experiments", experiments.experiments, "releases.read"),
    Route("POST", "/v1/experiments", experiments.begin, "releases.write"),
    Route("GET", "/v1/experiments/{id}", experiments.experiment, "releases.read"),
    Route("POST", "/v1/experiments/{id}", experiments.end, "releases.write"),
    Route("POST", "/v1/feedback", feedback.feedback, "generate"),
    Route("GET", "/health", probes.health, None),
    Route("GET", "/ready", probes.ready, "readiness.read"),
    Route("GET", "/metrics", probes.metrics, "metrics.read"),
    *(Route(way.method, way.path, registry.endpoint(way), way.permission) for way in registry.WAYS),
)
LITERAL = {(route.method, route.path): route for route in ROUTES if "{" not in route.path}
TAILED = tuple(route for route in ROUTES if route.path.endswith("{id}"))
NAMED = tuple((route, route.path.split("/")) for route in ROUTES if "{" in route.path and route not in TAILED)


def sent_path(scope: Scope) -> str:
    """The path as it came over the wire, before anything was decoded."""
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(scope["path"])
    return str(path).split("?")[0]


def match(method: str, path: str) -> tuple[Route, str, dict[str, str]]:
    """The route, the decoded tail of a path with one, its named segments. Raises NotFound or MethodNotAllowed."""
    if found := LITERAL.get((method, path)):
        return found, "", {}
    if candidates := {route.method: (route, names) for route, parts in NAMED if (names := segments(parts, path))}:
        if method in candidates:
            return candidates[method][0], "", candidates[method][1]
        raise MethodNotAllowed(method[:32], tuple(candidates))
    others: list[str] = []
    for route in TAILED:
        if path.startswith(stem := route.path[: -len("{id}")]) and (tail := decoded(path[len(stem) :])):
            if route.method == method:
                return route, tail, {}
            others.append(route.method)
    if others:
        raise MethodNotAllowed(method[:32], tuple(others))
    if allowed := tuple(route.method for route in ROUTES if route.path == path):
        raise MethodNotAllowed(method[:32], allowed)
    raise NotFound("path", path)


def segments(parts: list[str], path: str) -> dict[str, str]:
    """What the names of a route's path hold in `path`; nothing where it is another's."""
    there, names = path.split("/"), {}
    if len(there) != len(parts):
        return {}
    for part, segment in zip(parts, there, strict=True):
        if not part.startswith("{"):
            if part != segment:
                return {}
        elif (name := decoded(segment)) and "/" not in name:
            names[part[1:-1]] = name
        else:
            return {}
    return names


def decoded(tail: str) -> str:
    """A model's name from a path, once decoded; empty for what no name can be."""
    try:
        name = unquote_to_bytes(tail).decode()
    except UnicodeDecodeError:
        return ""
    return name if name.isprintable() and ".." not in name and "//" not in name else ""
