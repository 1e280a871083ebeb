"""Every route for every role and credential, and what no header may claim."""

import hashlib
import json
import logging
from typing import Any

import pytest

from cluster.security.policy import ALLOWED
from pipelines.gateway.routes import ROUTES
from tests.pipelines.gateway.conftest import Stage

REGISTRY = "/v1/registry/models"
BODIES: dict[str, dict[str, Any]] = {
    f"{REGISTRY}/{{model}}/versions/{{version}}/stage": {"stage": "candidate"},
    f"{REGISTRY}/{{model}}/aliases/{{alias}}": {"version": "v1"},
    f"{REGISTRY}/{{model}}/merge-requests": {"source": "tuned", "title": "Better"},
    f"{REGISTRY}/{{model}}/merge-requests/{{number}}/reviews": {"approves": True},
    f"{REGISTRY}/{{model}}/merge-requests/{{number}}/evaluations": {"metrics": {"eval.x": 1}},
    "/v1/registry/search": {"query": "a = b"},
    "/v1/chat/completions": {"model": "starter", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2},
    "/v1/completions": {"model": "starter", "prompt": "x", "max_tokens": 2},
    "/v1/rollouts": {"model": "starter", "to": "v2"},
    "/v1/routes/{id}": {"weights": {"v1": 100}},
    "/v1/rollouts/{id}": {"action": "abort"},
    "/v1/experiments": {"name": "tone"},
    "/v1/experiments/{id}": {"action": "end"},
    "/v1/feedback": {"id": "chatcmpl-1", "rating": "up"},
}
# The declared outcome of every route; a route that is missing here fails the tests.
NEEDS = {
    ("POST", "/v1/chat/completions"): "generate",
    ("POST", "/v1/completions"): "generate",
    ("GET", "/v1/models"): "models.read",
    ("GET", "/v1/models/{id}"): "models.read",
    ("GET", "/v1/routes"): "releases.read",
    ("GET", "/v1/routes/{id}"): "releases.read",
    ("PUT", "/v1/routes/{id}"): "releases.write",
    ("GET", "/v1/rollouts"): "releases.read",
    ("POST", "/v1/rollouts"): "releases.write",
    ("GET", "/v1/rollouts/{id}"): "releases.read",
    ("POST", "/v1/rollouts/{id}"): "releases.write",
    ("GET", "/v1/experiments"): "releases.read",
    ("POST", "/v1/experiments"): "releases.write",
    ("GET", "/v1/experiments/{id}"): "releases.read",
    ("POST", "/v1/experiments/{id}"): "releases.write",
    ("POST", "/v1/feedback"): "generate",
    ("GET", "/health"): None,
    ("GET", "/ready"): "readiness.read",
    ("GET", "/metrics"): "metrics.read",
    ("GET", f"{REGISTRY}"): "registry.read",
    ("GET", f"{REGISTRY}/{{model}}"): "registry.read",
    ("GET", f"{REGISTRY}/{{model}}/diff"): "registry.read",
    ("GET", f"{REGISTRY}/{{model}}/versions"): "registry.read",
    ("GET", f"{REGISTRY}/{{model}}/versions/{{version}}"): "registry.read",
    ("PUT", f"{REGISTRY}/{{model}}/versions/{{version}}/stage"): "registry.promote",
    ("GET", f"{REGISTRY}/{{model}}/aliases"): "registry.read",
    ("GET", f"{REGISTRY}/{{model}}/aliases/{{alias}}"): "registry.read",
    ("PUT", f"{REGISTRY}/{{model}}/aliases/{{alias}}"): "registry.promote",
    ("GET", f"{REGISTRY}/{{model}}/aliases/{{alias}}/history"): "registry.read",
    ("POST", f"{REGISTRY}/{{model}}/aliases/{{alias}}/rollback"): "registry.promote",
    ("GET", f"{REGISTRY}/{{model}}/merge-requests"): "registry.read",
    ("POST", f"{REGISTRY}/{{model}}/merge-requests"): "registry.push",
    ("GET", f"{REGISTRY}/{{model}}/merge-requests/{{number}}"): "registry.read",
    ("POST", f"{REGISTRY}/{{model}}/merge-requests/{{number}}/reviews"): "registry.review",
    ("POST", f"{REGISTRY}/{{model}}/merge-requests/{{number}}/evaluations"): "registry.review",
    ("POST", f"{REGISTRY}/{{model}}/merge-requests/{{number}}/merge"): "registry.merge",
    ("POST", f"{REGISTRY}/{{model}}/merge-requests/{{number}}/close"): "registry.push",
    ("POST", f"{REGISTRY}/{{model}}/merge-requests/{{number}}/reopen"): "registry.push",
    ("POST", "/v1/registry/search"): "registry.read",
}
QUERIES = {f"{REGISTRY}/{{model}}/diff": {"from": "v1", "to": "v2"}}
FILLED = {"{id}": "starter", "{model}": "chat", "{version}": "v1", "{alias}": "prod", "{number}": "1"}
ROLES = [*ALLOWED, "nobody", ""]


async def call(stage: Stage, method: str, path: str, headers: dict[str, str] | None = None):
    async with stage.http() as http:
        del http.headers["authorization"]
        address, body = path, BODIES.get(path) if method in ("POST", "PUT") else None
        for name, value in FILLED.items():
            address = address.replace(name, value)
        revised = {"if-match": '"r1"'} if method == "PUT" else {}
        asked = {"params": QUERIES.get(path), "json": body}
        return await http.request(method, address, headers={**revised, **(headers or {})}, **asked)


def test_every_route_is_declared():
    assert {(route.method, route.path): route.permission for route in ROUTES} == NEEDS


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), NEEDS)
async def test_role(stage: Stage, role: str, method: str, path: str):
    key = stage.ring.issue("tried", "acme", role, created=1)
    answer = await call(stage, method, path, {"authorization": f"Bearer {key}"})
    needed = NEEDS[method, path]
    allowed = needed is None or needed in ALLOWED.get(role, ())
    done = 404 if path == "/v1/feedback" else 200  # of an answer that nobody gave
    assert answer.status_code == (done if allowed else 403), answer.text
    if not allowed:
        assert answer.json()["error"]["code"] == "permission_denied"
    assert bool(stage.client.streams) == (allowed and needed == "generate" and done == 200)


def wrong_credentials(stage: Stage) -> dict[str, str]:
    revoked = stage.ring.issue("gone", "acme", "admin", created=1)
    stage.ring.revoke(revoked.split("-")[2])
    public = stage.key.split("-")[2]
    return {
        "none": "",
        "revoked": f"Bearer {revoked}",
        "another secret": f"Bearer sk-strata-{public}-{'A' * 43}",
        "no such id": f"Bearer sk-strata-{'0' * 12}-{stage.key[-43:]}",
        "its id alone": f"Bearer sk-strata-{public}-",
        "its hash": f"Bearer {hashlib.sha256(stage.key.encode()).hexdigest()}",
        "sql": "Bearer ' OR 1=1; --",
        "another scheme": f"Basic {stage.key}",
        "no scheme": stage.key,
        "spaces": f"Bearer  {stage.key}",
        "more": f"Bearer {stage.key} x",
        "upper": f"Bearer {stage.key.upper()}",
        "jwt": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
        "8 KB": "Bearer " + "A" * 8000,
        "latin": "Bearer \xff\xfe",
    }


@pytest.mark.parametrize("wrong", range(15))
@pytest.mark.parametrize(("method", "path"), NEEDS)
async def test_wrong_credential(stage: Stage, method: str, path: str, wrong: int):
    value = list(wrong_credentials(stage).values())[wrong].encode("latin-1")
    answer = await call(stage, method, path, {"authorization": value} if value else {})
    if NEEDS[method, path] is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert stage.key not in answer.text
    assert not stage.client.streams


async def test_all_wrong_keys_get_one_answer(stage: Stage):
    wrong = [value for value in wrong_credentials(stage).values() if value]
    told = {
        (await call(stage, "GET", "/v1/models", {"authorization": value.encode("latin-1")})).text for value in wrong
    }
    assert len(told) == 1


async def test_a_revoked_key_is_refused_at_once(stage: Stage):
    key = stage.ring.issue("short", "acme", "admin", created=1)
    held = {"authorization": f"Bearer {key}"}
    assert (await call(stage, "GET", "/v1/models", held)).status_code == 200
    stage.ring.revoke(key.split("-")[2])
    assert (await call(stage, "GET", "/v1/models", held)).status_code == 401


CLAIMS = [
    "x-forwarded-user", "x-remote-user", "remote-user", "x-principal", "x-tenant-id", "x-role", "x-user",
    "serve_multiplexed_model_id", "x-forwarded-for", "forwarded", "x-real-ip", "x-original-url", "x-rewrite-url",
    "x-http-method-override", "cookie", "x-serve-session", "x-auth-request-user", "openai-organization",
]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
async def test_a_claim_in_a_header_reaches_nobody(stage: Stage, claim: str):
    """Behind the layers the header is gone; before them it changes nothing."""
    async with stage.http() as http:
        http.headers[claim] = "admin"
        assert (await http.get("/v1/models")).status_code == 200
        del http.headers["authorization"]
        assert (await http.get("/v1/models")).status_code == 401


async def test_only_the_headers_that_are_read_are_kept(make_stage):
    from pipelines.gateway.middleware.headers import READ, accepted
    from pipelines.gateway.settings import GatewaySettings

    sent = [(claim.encode(), b"admin") for claim in CLAIMS] + [(b"host", b"localhost"), (b"accept", b"*/*")]
    kept = accepted(sent, GatewaySettings())
    assert kept == [(b"host", b"localhost"), (b"accept", b"*/*")]
    assert {name for name, _ in kept} <= READ


@pytest.mark.parametrize(
    "path",
    ["/", "//v1/models", "/v1//models", "/v1/models/", "/v1/%6dodels", "/v1/%2e%2e/health", "/v1/../health",
     "/v1/..;/health", "/v1/models;x=1", "/V1/models", "/v1/models/..", "/v1/models/%2e%2e", "/v1/models/%00",
     "/v1/models/a%2f%2fb", "/v1/models/..%2f..%2fkeys", "/v1/models/%ff", "/health/", "/health%20", "/metrics/x",
     "/v1", "/v1/admin", "/%2e%2e/metrics", "/v1/models/%0d%0aset-cookie:x", "/-/healthz", "/docs", "/openapi.json",
     "/v1/registry", "/v1/registry/models/", "/v1/registry/models/a%2fb", "/v1/registry/models/../x/aliases",
     "/v1/registry/models/%2e%2e/aliases", "/v1/registry/models//aliases", "/v1/registry/models/a/aliases/b/c"],
)  # fmt: skip
async def test_no_such_path(stage: Stage, path: str):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {stage.key}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "raw_path": path.encode(), "headers": headers}
    await stage.app(scope, receive, send)
    assert sent[0]["status"] == 404
    assert json.loads(sent[1]["body"])["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW", "GE"])
@pytest.mark.parametrize("path", sorted({path for _, path in NEEDS}))
async def test_verbs(stage: Stage, method: str, path: str):
    known = {verb for verb, other in NEEDS if other == path}
    if method in known:
        return
    answer = await call(stage, method, path, {"authorization": f"Bearer {stage.key}"})
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == known


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("localhost:8000", 200), ("127.0.0.1:1", 200), ("[::1]:8000", 200), ("10.1.2.3", 200),
     ("evil.example", 400), ("localhost.evil.example", 400), ("a b", 400), ("localhost:port", 400), ("", 400),
     ("user@localhost", 400), ("localhost/x", 400), ("127.0.0.1.evil.example", 400), ("[::1", 400)],
)  # fmt: skip
async def test_host(stage: Stage, host: str, status: int):
    assert (await call(stage, "GET", "/health", {"host": host})).status_code == status


async def test_a_host_of_the_settings(make_stage):
    from pipelines.gateway.settings import GatewaySettings

    named, every = (make_stage(GatewaySettings(hosts=hosts)) for hosts in (("strata.example",), ("*",)))
    assert (await call(named, "GET", "/health", {"host": "strata.example:443"})).status_code == 200
    assert (await call(named, "GET", "/health", {"host": "other.example"})).status_code == 400
    assert (await call(every, "GET", "/health", {"host": "other.example"})).status_code == 200


async def test_nothing_secret_is_logged_or_measured(stage: Stage, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    secret = "my-secret-prompt"
    body = {"model": "starter", "messages": [{"role": "user", "content": secret}], "max_tokens": 2}
    async with stage.http() as http:
        await http.post("/v1/chat/completions", json=body)
        await http.get(f"/v1/{secret}")
        await http.request(secret.upper(), "/v1/models")
    records = [record.__dict__ for record in caplog.records if record.name == "strata.gateway"]
    assert [record["status"] for record in records] == [200, 404, 405]
    assert records[0]["principal"] == stage.key.split("-")[2]
    assert records[0]["completion_tokens"] == 2
    seen = repr(records) + stage.metrics.text().decode()
    assert secret not in seen.lower()
    assert stage.key not in seen


@pytest.mark.parametrize(
    ("sent", "taken"), [("abc-1.2_X", True), ("a b", False), ("x" * 65, False), ("a\x1b[31m", False)]
)
async def test_request_id(stage: Stage, sent: str, taken: bool):
    answer = await call(stage, "GET", "/health", {"x-request-id": sent.encode()})
    assert (answer.headers["x-request-id"] == sent) is taken
