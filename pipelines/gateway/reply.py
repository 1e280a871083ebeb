"""A turn about to be answered: what is asked, of whom, for whom and until when; and what is told of it afterwards.

Knows the spine and shapes. Knows nothing of how an answer travels.
"""

from dataclasses import dataclass
from hashlib import blake2b

from pipelines.chat import Answer, Served, Turn, answer
from pipelines.gateway.asgi import Exchange, Scope, exchange
from pipelines.gateway.desk import Desk
from pipelines.gateway.meter import TurnMeter
from pipelines.gateway.mirror import SAID
from pipelines.gateway.regain import Last
from pipelines.gateway.shapes import Shape
from pipelines.gateway.wire import Wanted
from pipelines.routing.guide import Witness


@dataclass(frozen=True, slots=True)
class Terms:
    """How urgent a request is, and until when its answer is wanted: `seconds` from its coming, on the desk's clock."""

    priority: int
    until: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A turn about to be answered, and how. `last` is what its reader has of it from another gateway."""

    served: Served
    turn: Turn
    shape: Shape
    request: Wanted
    terms: Terms
    owner: tuple[str, bytes]
    witness: Witness
    name: str
    last: Last | None

    @property
    def whose(self) -> str:
        """Who asked for what, and who answers: what an answer that is made again has to have in common."""
        parts = (self.owner[0].encode(), self.owner[1], self.served.name.encode())
        return blake2b(b"\0".join(parts), digest_size=6).hexdigest()


def owner_of(scope: Scope, body: bytes) -> tuple[str, bytes]:
    """Whose a stream is: a principal's, for this request."""
    return exchange(scope).principal.id, blake2b(body, digest_size=16).digest()


async def begin(desk: Desk, to: Reply) -> Answer:
    """The turn, submitted and metered."""
    metrics = desk.metrics.model(to.served.name)
    metrics.prompt_tokens.observe(sum(map(len, to.turn.prompts)))
    to.witness.figures = meter = TurnMeter(metrics, desk.clock)
    begun = await answer(to.served, to.turn, meter)
    if to.witness.way.shadow:
        begun.keep(SAID)
    return begun


def testify(to: Reply, begun: Answer) -> None:
    """Say of an answer that is whole what its version is judged by."""
    first = begun.voices[0]
    to.witness.done(first.head, first.finish == "length", first.tokens, first.stream.lost)


def note(noted: Exchange, begun: Answer) -> None:
    """What the access log tells of a turn."""
    noted.notes = {"prompt_tokens": begun.usage.prompt, "completion_tokens": begun.usage.completion}
