"""Read a request body: counted as it comes, before a deadline, never decompressed.

Knows bytes. Knows nothing of what they mean.
"""

import asyncio

from pipelines.gateway.asgi import Receive, Scope, exchange, header
from pipelines.gateway.failures import BadHeaders, BodyTooLarge, BodyTooSlow, MediaUnsupported
from pipelines.gateway.settings import GatewaySettings


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


def check_media(scope: Scope, limit: int) -> None:
    """Raises MediaUnsupported or BodyTooLarge for what the headers already give away."""
    if header(scope, b"content-encoding").strip().lower() not in (b"", b"identity"):
        raise MediaUnsupported("Send the body uncompressed, without Content-Encoding.")
    kind = header(scope, b"content-type").split(b";")[0].strip().lower()
    if kind not in (b"application/json", b""):
        raise MediaUnsupported("Send JSON, with Content-Type: application/json.")
    length = header(scope, b"content-length")
    if length and not length.isdigit():
        raise BadHeaders("Content-Length is not a number.")
    if length and (len(length) > 18 or int(length) > limit):
        raise BodyTooLarge(f"A request body has at most {limit} bytes.")


async def read_body(scope: Scope, receive: Receive, settings: GatewaySettings) -> bytes:
    """The whole body. Raises ClientGone, BodyTooLarge, BodyTooSlow or MediaUnsupported."""
    check_media(scope, settings.body_bytes)
    try:
        async with asyncio.timeout(settings.body_seconds):
            body = await gather(receive, settings.body_bytes)
    except TimeoutError:
        raise BodyTooSlow(f"The request body did not arrive within {settings.body_seconds:g} s.") from None
    exchange(scope).body_read = True
    return body


async def gather(receive: Receive, limit: int) -> bytes:
    """All chunks joined, refused as soon as they are too many."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(f"A request body has at most {limit} bytes.")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def drain(scope: Scope, receive: Receive, limit: int, seconds: float) -> bool:
    """Throw away the body of a request that is refused, within bounds. Whether all of it came.

    A client that still sends does not read: closing on it loses the answer (a reset overtakes it). One that
    waits for `100 Continue` has not begun.
    """
    if exchange(scope).body_read or not any(header(scope, name) for name in (b"content-length", b"transfer-encoding")):
        return True
    if header(scope, b"expect"):
        return False
    try:
        async with asyncio.timeout(seconds):
            size = 0
            while size <= limit:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        pass
    return False
