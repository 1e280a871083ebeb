"""Work for as long as somebody waits for it: until done, until the client goes away, or until the deadline.

Knows tasks and the ASGI `receive`. Knows nothing of what the work is.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from cluster.errors import DeadlineExceeded
from pipelines.gateway.asgi import Receive
from pipelines.gateway.body import ClientGone


async def attended(work: Coroutine[Any, Any, None], receive: Receive, what: str, seconds: float, left: float) -> None:
    """Run `work`; cancel it at once when the client disconnects.

    Raises what the work raises, ClientGone, or DeadlineExceeded naming `what` and `seconds` when the `left` are over.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(departure(receive))
    try:
        done, _ = await asyncio.wait((working, watching), timeout=left, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        working.cancel()  # nothing, if it is done
        await asyncio.gather(working, watching, return_exceptions=True)
    if working in done:
        return working.result()
    raise ClientGone if done else DeadlineExceeded(what, seconds)


async def departure(receive: Receive) -> None:
    """Return when the client has gone. Whatever else it still sends has no meaning."""
    while (await receive())["type"] != "http.disconnect":
        pass
