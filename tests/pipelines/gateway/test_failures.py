"""Every error of the family has a status, a code and words, and no traceback, however it arrives."""

import inspect
import json
import pickle

import pytest

from cluster import errors
from cluster.errors import InvalidRequest, NotFound, Overloaded, ReplicaLost, StrataError
from pipelines.gateway import failures
from pipelines.gateway.failures import CODES, body_of, code_of, event_of, headers_of, named, status_of

ARGUMENTS = {
    "InvalidRequest": ("n", 0, "at least 1"),
    "ContextTooLong": ("messages", "9 tokens", "shorten"),
    "SettingsInvalid": ("models", 1, "a list"),
    "ModelInvalid": ("path", "no config.json", "add it"),
    "ArchitectureUnsupported": ("path", "T5", "take a decoder"),
    "Unauthenticated": ("no key",),
    "Forbidden": ("laptop", "metrics.read"),
    "NotFound": ("model", "x", ("a", "b")),
    "Conflict": ("aliases/prod", "v1", "v2"),
    "Barred": ("the folder x", "is there already", "name another"),
    "IllegalMove": ("chat@v1", "draft", "live", ("candidate", "retired")),
    "MergeConflict": ("tuned", "main", ("a.json, which both changed",)),
    "Overloaded": ("m", 9, 3),
    "ExtraMissing": ("speech", "speech"),
    "Unavailable": ("m", "gone"),
    "ReplicaLost": ("m", "gone"),
    "SuspectLost": ("m", "gone", 2),
    "NotReady": ("m", "starting"),
    "GivenUp": (2, 17),
    "PlacementImpossible": ("m", "2 GPUs", "1 GPU", "add a node"),
    "DeadlineExceeded": ("m", 600.0),
    "MethodNotAllowed": ("PUT", ("GET",)),
}


def family() -> list[StrataError]:
    classes = {
        found
        for module in (errors, failures)
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, StrataError) and found not in (StrataError, failures.HttpRefused)
    }
    return [
        found(*ARGUMENTS.get(found.__name__, ("a problem",))) for found in sorted(classes, key=lambda one: one.__name__)
    ]


@pytest.mark.parametrize("error", family(), ids=lambda error: type(error).__name__)
def test_of_the_family(error: StrataError):
    told = body_of(error)["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert told["message"] == str(error)
    assert told["code"] != "internal_error"
    assert 400 <= status_of(error) < 600
    assert told["type"] == error.kind
    assert json.loads(event_of(error).removeprefix(b"data: "))["error"] == told
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), status_of(again)) == (type(error), str(error), status_of(error))
    for name, value in headers_of(error):
        assert name == name.lower()
        assert b"\n" not in value


def test_the_most_specific_code_comes_first():
    for place, (kind, _) in enumerate(CODES):
        assert not any(issubclass(kind, earlier) for earlier, _ in CODES[:place])


def test_a_retryable_error_says_when():
    for error in family():
        if isinstance(error, Overloaded | errors.Unavailable):
            assert b"retry-after" in dict(headers_of(error))
    assert dict(headers_of(Overloaded("m", 9, 7)))[b"retry-after"] == b"7"


class Remote(ReplicaLost):
    """As Ray hands a remote error over: both its own class and ours, and its text is a traceback."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause

    def __str__(self) -> str:
        return "Traceback (most recent call last): File secret.py"


def test_a_remote_error_shows_its_cause_alone():
    error = Remote(ReplicaLost("m", "a rank died"))
    assert body_of(error)["error"]["message"] == "m is unavailable: a rank died"
    assert body_of(error)["error"]["code"] == "replica_lost"
    assert status_of(error) == 503


def test_a_stranger_is_said_to_be_unexpected():
    error = ValueError("secret detail")
    assert named(error) is None
    assert status_of(error) == 500
    assert "secret" not in json.dumps(body_of(error))


def test_what_is_not_found():
    assert code_of(NotFound("model", "x")) == "model_not_found"
    assert body_of(NotFound("model", "x"))["error"]["param"] == "model"
    assert code_of(NotFound("path", "/x")) == "not_found"
    assert body_of(InvalidRequest("n", 0, "at least 1"))["error"]["param"] == "n"
