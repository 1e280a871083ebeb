"""An error that crossed HTTP is the error that it was, word for word."""

import httpx
import pytest

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
    sent,
)
from pipelines.gateway.failures import body_of, status_of
from pipelines.refusals import refusal

CROSSING: list[StrataError] = [
    InvalidRequest("temperature", -1, "it is at least 0 and at most 100"),
    InvalidRequest("messages[3].content", sent("a: b is not accepted; c"), "it is a text"),
    InvalidRequest("stop", sent("two\nlines"), "each is a text"),
    ContextTooLong("max_tokens", "5 prompt tokens and 900 to generate", "both together fit in 512 tokens"),
    NotFound("model", "zork", ("starter", "org/other")),
    NotFound("page", "/v1/none"),
    Unauthenticated("no API key; send it as Authorization: Bearer"),
    Forbidden("alice", "models:deploy"),
    Overloaded("starter", 256, 3),
    Unavailable("starter", "none of its replicas is up"),
    ReplicaLost("starter#1", "rank 1 died: is unavailable: so"),
    NotReady("starter", "no replica has made its first token yet"),
    DeadlineExceeded("the answer", 2.5),
]


@pytest.mark.parametrize("error", CROSSING, ids=lambda error: type(error).__name__)
def test_it_is_the_same_on_the_other_side(error: StrataError) -> None:
    seen = refusal(httpx.Response(status_of(error), json=body_of(error)))
    assert type(seen) is type(error)
    assert (str(seen), seen.param) == (str(error), error.param)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthenticated), (403, Refused), (400, Refused), (404, Refused), (429, Unavailable), (502, Unavailable)],
)
def test_what_another_server_says_goes_by_its_status(status: int, kind: type[StrataError]) -> None:
    for content in ({"error": {"message": "no", "code": "invalid_value"}}, {"error": "no"}, ["no"], "no"):
        wrong = refusal(httpx.Response(status, json=content))
        assert type(wrong) is kind
        assert "no" in str(wrong)
        assert str(wrong).count("is not accepted") == 0


def test_an_answer_without_words_says_its_status() -> None:
    assert "Bad Gateway" in str(refusal(httpx.Response(502)))
