"""Which role may do what: one table, default deny.

Knows permissions by name. Knows nothing of routes, keys or tenants.
"""

from cluster.errors import Forbidden
from cluster.security.keys import Principal

_DEVELOPS = frozenset({"registry.read", "registry.push", "registry.review", "registry.merge"})
ALLOWED: dict[str, frozenset[str]] = {
    "admin": frozenset({"generate", "models.read", "readiness.read", "metrics.read", "releases.read", "releases.write"})
    | _DEVELOPS
    | {"registry.promote", "registry.maintain"},
    "developer": frozenset({"generate", "models.read", "readiness.read", "releases.read"}) | _DEVELOPS,
    "user": frozenset({"generate", "models.read", "readiness.read"}),
    "monitor": frozenset({"models.read", "readiness.read", "metrics.read", "releases.read"}),
}


def require(principal: Principal, permission: str) -> None:
    """Raises Forbidden unless the principal's role holds the permission. An unknown role holds none."""
    if permission not in ALLOWED.get(principal.role, frozenset()):
        raise Forbidden(principal.name, permission)
