"""Refuse headers that are too large, come twice or name a foreign host; drop all that the gateway does not read.

An allow-list: an identity or a route that a client claims in a header never reaches the code within.
"""

import ipaddress
import re

from pipelines.gateway.asgi import App, Headers, Receive, Scope, Send
from pipelines.gateway.desk import Desk
from pipelines.gateway.failures import BadHeaders, HeadersTooLarge
from pipelines.gateway.settings import GatewaySettings

READ = frozenset(
    b"host authorization content-type content-length content-encoding transfer-encoding expect accept user-agent "
    b"x-request-id traceparent tracestate last-event-id if-match if-none-match".split()
)
ONCE = frozenset(
    b"host authorization content-type content-length content-encoding last-event-id if-match if-none-match".split()
)
HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._\-]{1,253})(:\d{1,5})?")


def headers(desk: Desk, app: App) -> App:
    """Before a route is chosen or a key is read."""

    async def cleaned(scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = accepted(scope["headers"], desk.settings, desk.guide.headers)
        await app(scope, receive, send)

    return cleaned


def accepted(
    sent: Headers, settings: GatewaySettings, routed: frozenset[bytes] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """The headers that the gateway reads, and those that routes look at. Raises HeadersTooLarge or BadHeaders."""
    kept: list[tuple[bytes, bytes]] = []
    seen: set[bytes] = set()
    size = 0
    for name, value in sent:
        size += len(name) + len(value)
        if size > settings.header_bytes:
            raise HeadersTooLarge(f"The headers have more than {settings.header_bytes} bytes.")
        if name == b"authorization" and len(value) > settings.token_bytes:
            raise HeadersTooLarge(f"The Authorization header has more than {settings.token_bytes} bytes.")
        if (name in ONCE or name in routed) and name in seen:
            raise BadHeaders(f"The header {name.decode()} may come only once.")
        if name in READ or name in routed:
            seen.add(name)
            kept.append((name, value))
        if name == b"host":
            check_host(value.decode("latin-1"), settings.hosts)
    if b"content-length" in seen and b"transfer-encoding" in seen:
        raise BadHeaders("Content-Length and Transfer-Encoding exclude each other.")
    return kept


def check_host(host: str, names: tuple[str, ...]) -> None:
    """Raises BadHeaders for a name that is not ours: a page whose name was rebound to our address says its own."""
    match = HOST.fullmatch(host)
    if match is None:
        raise BadHeaders("The Host header is malformed.")
    name = match.group(1).lower()
    if "*" not in names and name != "localhost" and name not in names and not is_address(name):
        raise BadHeaders("The Host header names a host that this gateway is not; add it to gateway.hosts.")


def is_address(name: str) -> bool:
    """Whether it is an IP address, which no DNS answer can rebind."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
