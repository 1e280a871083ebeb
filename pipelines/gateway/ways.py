"""Which version of a model takes a request, and the way there: another one where it refuses before a word is said.

Knows the guide and requests. What a version is asked, and how it answers, is `generate`'s.
"""

from collections.abc import Awaitable, Callable, Sequence

from cluster.errors import Overloaded, StrataError, Unavailable
from pipelines.chat import Served
from pipelines.gateway.asgi import Scope, exchange
from pipelines.gateway.body import ClientGone
from pipelines.gateway.desk import Desk
from pipelines.gateway.mirror import Prepare
from pipelines.gateway.wire import Wanted
from pipelines.routing.guide import Way, Witness, full
from pipelines.routing.route import Facts

Ask = Callable[[Served, Witness], Awaitable[None]]


def way_of(desk: Desk, scope: Scope, request: Wanted, texts: Sequence[str | Sequence[int]]) -> Way:
    """Where a request goes: as the routes have it, or to the very version that it names. Raises NotFound."""
    if request.model in desk.guide.routes:
        facts = facts_of(desk, scope, request, texts)
        found = desk.guide.way(request.model, facts, desk.draw(53) * 2.0**-53)
        if found is not None:
            desk.feedback.asked(found, texts)
            return found
    served = desk.served(request.model)
    model, _, version = served.name.partition("@")
    return Way(model, version, served.name)


def facts_of(desk: Desk, scope: Scope, request: Wanted, texts: Sequence[str | Sequence[int]]) -> Facts:
    """Who asks, and what. The last text tells the language: instructions before it may be in another."""
    principal, wanted = exchange(scope).principal, desk.guide.headers
    last = texts[-1] if texts else ""
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in wanted}
    user = request.user or principal.id
    return Facts(principal.tenant, user, sum(map(len, texts)), last if isinstance(last, str) else "", headers)


async def travel(desk: Desk, scope: Scope, way: Way, ask: Ask, prepare: Prepare | None) -> None:
    """Have the version answer. Where a new one refuses at once, the one that it is to replace does; it is noted.

    `prepare` makes the turn that a shadow is asked afterwards; None where none can be.
    """
    witness = await _travel(desk, scope, way, ask)
    if way.shadow and witness.said and prepare is not None:
        desk.mirror.offer(way, desk.served(full(way.model, way.shadow)), prepare, witness.said)


async def _travel(desk: Desk, scope: Scope, way: Way, ask: Ask) -> Witness:
    """What a new version finds wrong with a request, the one that it is to replace is asked, too: what that one answers
    was no fault of the client's.
    """
    noted = exchange(scope)
    refused: Witness | None = None
    try:
        while True:
            noted.version = way.version
            witness = desk.guide.begin(way)
            desk.feedback.answers(noted.id, noted.principal.tenant, way)  # ahead: who has read it may speak at once
            try:
                await ask(desk.served(way.served), witness)
                if refused is not None:
                    refused.failed()
                return witness
            except ClientGone:
                if noted.status:  # it had begun to read
                    desk.feedback.left(way)
                raise
            except Exception as wrong:
                desk.feedback.failed(noted.id)
                blamed = _blames_client(wrong)
                if not blamed:
                    witness.failed()
                if noted.status or way.instead is None or not (blamed or isinstance(wrong, _ELSEWHERE)):
                    raise
                refused, way = witness if blamed else refused, way.instead
            finally:
                if witness is not refused:
                    witness.dropped()  # nothing, where it has been told
    finally:
        if refused is not None:
            refused.dropped()


_ELSEWHERE = (Overloaded, Unavailable)  # what another version may well answer


def _blames_client(wrong: Exception) -> bool:
    return isinstance(wrong, StrataError) and wrong.status < 500 and not isinstance(wrong, _ELSEWHERE)
