"""Errors as HTTP: one table from the error family to the OpenAI shape, and the refusals that only HTTP knows.

Knows no endpoint. Never shows a stack trace, a path or a value that the client did not send.
"""

import json
from typing import Any

from cluster.errors import (
    Conflict,
    ContextTooLong,
    DeadlineExceeded,
    ExtraMissing,
    Forbidden,
    GivenUp,
    IllegalMove,
    InvalidRequest,
    MergeConflict,
    ModelInvalid,
    NotFound,
    NotReady,
    Overloaded,
    PlacementImpossible,
    Refused,
    ReplicaLost,
    SettingsInvalid,
    StrataError,
    Unauthenticated,
    Unavailable,
)


class HttpRefused(StrataError):
    """A request that HTTP itself lets us refuse before a field is read."""

    kind = "invalid_request_error"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class BadHeaders(HttpRefused):
    """Headers that contradict each other or name no host of ours."""

    status = 400


class MethodNotAllowed(HttpRefused):
    """The path exists and does not know this verb."""

    status = 405

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed
        super(HttpRefused, self).__init__(method, allowed)
        self.problem = f"This path takes {' and '.join(allowed)}."

    def __str__(self) -> str:
        return self.problem


class BodyTooSlow(HttpRefused):
    """The body did not arrive before its deadline."""

    status = 408
    retryable = True


class BodyTooLarge(HttpRefused):
    """More bytes than a request may have."""

    status = 413


class MediaUnsupported(HttpRefused):
    """A body that is compressed or is not JSON."""

    status = 415


class HeadersTooLarge(HttpRefused):
    """More header bytes than a request may have."""

    status = 431


# What a client may branch on, most specific first.
CODES: tuple[tuple[type[StrataError], str], ...] = (
    (ContextTooLong, "context_length_exceeded"),
    (InvalidRequest, "invalid_value"),
    (Refused, "refused"),
    (SettingsInvalid, "settings_invalid"),
    (ModelInvalid, "model_invalid"),
    (Unauthenticated, "invalid_api_key"),
    (Forbidden, "permission_denied"),
    (NotFound, "not_found"),
    (IllegalMove, "illegal_move"),
    (MergeConflict, "merge_conflict"),
    (Conflict, "conflict"),
    (Overloaded, "queue_full"),
    (ExtraMissing, "extra_missing"),
    (ReplicaLost, "replica_lost"),
    (NotReady, "not_ready"),
    (Unavailable, "unavailable"),
    (GivenUp, "given_up"),
    (PlacementImpossible, "no_capacity"),
    (DeadlineExceeded, "deadline_exceeded"),
    (BadHeaders, "bad_headers"),
    (MethodNotAllowed, "method_not_allowed"),
    (BodyTooSlow, "body_too_slow"),
    (BodyTooLarge, "body_too_large"),
    (MediaUnsupported, "unsupported_media_type"),
    (HeadersTooLarge, "headers_too_large"),
)
UNEXPECTED = {
    "error": {"message": "An unexpected error.", "type": "server_error", "param": None, "code": "internal_error"}
}


def named(error: Exception) -> StrataError | None:
    """The error of our family that `error` is or carries. A remote one says its traceback, its cause does not."""
    cause = getattr(error, "cause", None)
    for candidate in (cause, error):
        if isinstance(candidate, StrataError):
            return candidate
    return None


def code_of(error: StrataError) -> str:
    """The `code` field. A model that does not exist has OpenAI's own."""
    if isinstance(error, NotFound) and error.thing == "model":
        return "model_not_found"
    return next((code for kind, code in CODES if isinstance(error, kind)), "internal_error")


def body_of(error: Exception) -> dict[str, Any]:
    """The OpenAI error object."""
    known = named(error)
    if known is None:
        return UNEXPECTED
    param = "model" if code_of(known) == "model_not_found" else known.param
    return {"error": {"message": str(known), "type": known.kind, "param": param, "code": code_of(known)}}


def status_of(error: Exception) -> int:
    """The HTTP status."""
    known = named(error)
    return known.status if known else 500


def headers_of(error: Exception) -> list[tuple[bytes, bytes]]:
    """The headers that an error adds: when to come back, which verbs there are, what credential is wanted."""
    known = named(error)
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(known, Overloaded):
        headers.append((b"retry-after", str(known.retry_after_seconds).encode()))
    elif isinstance(known, Unavailable):
        headers.append((b"retry-after", b"1"))
    elif isinstance(known, Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="strata"'))
    elif isinstance(known, MethodNotAllowed):
        headers.append((b"allow", ", ".join(known.allowed).encode()))
    return headers


def event_of(error: Exception) -> bytes:
    """The server-sent event that ends a stream which has already begun."""
    return b"data: " + json.dumps(body_of(error)).encode() + b"\n\n"
