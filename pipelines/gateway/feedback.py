"""What users made of answers: told by `/v1/feedback`, or seen by what they do next.

Remembers the last answers of versions that are compared, each for the tenant that it was given to. Knows ways and
users; what becomes of an outcome is the guide's.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from cluster.errors import InvalidRequest, NotFound, sent
from pipelines.gateway.asgi import Receive, Scope, Send, exchange, respond_json
from pipelines.gateway.body import read_body
from pipelines.gateway.strict import parse
from pipelines.routing.guide import Guide, Way

if TYPE_CHECKING:
    from pipelines.gateway.desk import Desk

KEPT = 100_000  # answers, and users: some 40 MB when full
RATINGS = {"up": 1.0, "down": 0.0}
FIELDS = frozenset({"id", "rating", "score", "comment"})
COMMENT = 4_096  # characters; it is not kept, as nothing here reads it


@dataclass(slots=True)
class Last:
    """A user's last request of a model, and who answered it."""

    digest: bytes
    way: Way


@dataclass(slots=True)
class Feedback:
    """One gateway's memory of who answered what."""

    guide: Guide
    _answers: OrderedDict[str, tuple[str, Way]] = field(default_factory=OrderedDict)
    _last: OrderedDict[tuple[str, str], Last] = field(default_factory=OrderedDict)

    def asked(self, way: Way, texts: Sequence[str | Sequence[int]]) -> None:
        """A user asks: the same again, so that the answer before was none to keep, or something else."""
        if not (way.counts or way.trial):
            return
        digest, whose = blake2b(repr(texts).encode("utf-8", "replace"), digest_size=16).digest(), (way.model, way.user)
        last = self._last.pop(whose, None)
        if last is not None:
            self.guide.outcome(last.way, "kept", float(last.digest != digest))
        self._last[whose] = Last(digest, way)
        if len(self._last) > KEPT:
            self._last.popitem(last=False)

    def answers(self, name: str, tenant: str, way: Way) -> None:
        """An answer begins that may be spoken of, by its request's id."""
        if way.counts or way.trial:
            self._answers[name] = tenant, way
            if len(self._answers) > KEPT:
                self._answers.popitem(last=False)

    def failed(self, name: str) -> None:
        """It was none, and nobody may speak of it."""
        self._answers.pop(name, None)

    def left(self, way: Way) -> None:
        """A user went away before the answer's end."""
        if self._last.pop((way.model, way.user), None) is not None:
            self.guide.outcome(way, "kept", 0.0)

    def told(self, name: str, tenant: str, values: dict[str, float]) -> Way:
        """What a user says of an answer. Raises NotFound for one that is not known to that tenant."""
        answer = name.removeprefix("chatcmpl-").removeprefix("cmpl-")
        whose, way = self._answers.get(answer, ("", None))
        if way is None or whose != tenant:
            raise NotFound("answer that is compared", name)
        for metric, value in values.items():
            self.guide.outcome(way, metric, value)
        return way


async def feedback(desk: "Desk", scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/feedback: `{"id": "chatcmpl-...", "rating": "up"}`, or a score from 0 to 1."""
    body = parse(await read_body(scope, receive, desk.settings))
    noted = exchange(scope)
    way = desk.feedback.told(_id(body), noted.principal.tenant, values(body))
    await respond_json(send, 200, {"object": "feedback", "id": body["id"], "model": way.model})


def values(body: dict[str, Any]) -> dict[str, float]:
    """What a body says, by metric. Raises InvalidRequest."""
    for name in body.keys() - FIELDS:
        raise InvalidRequest(name, "this unknown field", f"give {', '.join(sorted(FIELDS))}")
    found: dict[str, float] = {}
    if "rating" in body:
        if body["rating"] not in RATINGS:
            raise InvalidRequest("rating", sent(body["rating"]), "give up or down")
        found["thumbs"] = RATINGS[body["rating"]]
    if "score" in body:
        score = body["score"]
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise InvalidRequest("score", sent(score), "it is a number from 0 to 1")
        found["score"] = float(score)
    if not found:
        raise InvalidRequest("rating", "nothing", "give a rating, up or down, or a score from 0 to 1")
    comment = body.get("comment", "")
    if not isinstance(comment, str) or len(comment) > COMMENT:
        raise InvalidRequest("comment", sent(comment), f"it is a text of at most {COMMENT} characters")
    return found


def _id(body: dict[str, Any]) -> str:
    name = body.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= 128:
        raise InvalidRequest("id", sent(name), "give the id of an answer, as it came")
    return name
