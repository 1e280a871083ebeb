"""What a gateway refused, as the error of our family that it was there: the inverse of `gateway.failures`.

Knows the messages that our errors make. Knows nothing of what was asked.
"""

import re
from collections.abc import Callable
from typing import Any

import httpx

from cluster.errors import (
    ContextTooLong,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    Refused,
    ReplicaLost,
    StrataError,
    Unauthenticated,
    Unavailable,
)

FIELD = re.compile(r"(.+?): (.*) is not accepted; (.*)", re.DOTALL)
ABSENT = re.compile(r"no (\S+) (.*?)(?:; there is (.*))?", re.DOTALL)
GONE = re.compile(r"(.+?) is unavailable: (.*)", re.DOTALL)
QUEUED = re.compile(r"(.+) has (\d+) requests waiting; retry in (\d+) s")
LATE = re.compile(r"(.+) did not finish within (\S+) s")
LACKING = re.compile(r"(.+) lacks the permission (.*)")

# By the response's `code`: how the error says itself, and what makes it again of the parts.
READ: dict[str, tuple[re.Pattern[str], Callable[..., StrataError]]] = {
    "context_length_exceeded": (FIELD, ContextTooLong),
    "invalid_value": (FIELD, InvalidRequest),
    "model_not_found": (ABSENT, lambda thing, name, known: NotFound(thing, name, _known(known))),
    "not_found": (ABSENT, lambda thing, name, known: NotFound(thing, name, _known(known))),
    "permission_denied": (LACKING, Forbidden),
    "queue_full": (QUEUED, lambda model, queued, seconds: Overloaded(model, int(queued), int(seconds))),
    "replica_lost": (GONE, ReplicaLost),
    "not_ready": (GONE, NotReady),
    "unavailable": (GONE, Unavailable),
    "deadline_exceeded": (LATE, lambda what, seconds: DeadlineExceeded(what, float(seconds))),
}


def refusal(response: httpx.Response) -> StrataError:
    """An error response as one of our errors."""
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    return told(error if error is not None else response.text[:200] or response.reason_phrase, response.status_code)


def told(error: Any, status: int) -> StrataError:
    """An OpenAI error object as one of our errors; by its status where it is not one that we know."""
    if not isinstance(error, dict):
        return _by_status(str(error), status)
    message = str(error.get("message", error))
    pattern, make = READ.get(str(error.get("code")), (None, None))
    found = pattern.fullmatch(message) if pattern else None
    if found is not None and make is not None:
        return make(*found.groups())
    return _by_status(message, status)


def _by_status(message: str, status: int) -> StrataError:
    if status == httpx.codes.UNAUTHORIZED:
        return Unauthenticated(message)
    if status in (429, 500, 502, 503, 504):
        return Unavailable("the gateway", message)
    return Refused(message)


def _known(listed: str | None) -> tuple[str, ...]:
    return tuple(listed.split(", ")) if listed else ()
