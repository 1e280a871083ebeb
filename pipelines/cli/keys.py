"""`strata keys`: the API keys of this state folder, and the one that the CLI itself uses.

The operator's key lies in clear in the state folder, 0600: whoever can read it owns the process anyway.
"""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from cluster import folders
from cluster.errors import InvalidRequest, Unauthenticated
from cluster.scheduling.admission import LEAST_URGENT, MOST_URGENT
from cluster.security.keys import KeyRing
from cluster.security.policy import ALLOWED
from cluster.settings import ClusterSettings
from pipelines.cli import show
from pipelines.cli.config import settle

OPERATOR = "operator"


def issue(name: str, tenant: str, role: str, priority: int, file: Path | None, *, as_json: bool) -> None:
    """Make a key and print it, this once."""
    if not MOST_URGENT <= priority <= LEAST_URGENT:
        raise InvalidRequest("--priority", priority, f"give {MOST_URGENT} to {LEAST_URGENT}; lower is sooner")
    if role not in ALLOWED:
        raise InvalidRequest("--role", role, f"give one of {', '.join(ALLOWED)}")
    cluster = settle(file).settings.cluster
    with folders.writing(cluster):
        key = KeyRing(cluster.keys_file).issue(name, tenant, role, int(time.time()), priority)
    if as_json:
        show.document({"key": key, "name": name, "tenant": tenant, "role": role, "priority": priority})
    else:
        show.line(f"{key}\n[dim]Keep it: only its hash is stored.[/]")


def listing(file: Path | None, *, as_json: bool) -> None:
    """List the keys without their secrets."""
    cluster = settle(file).settings.cluster
    with folders.writing(cluster):
        records = KeyRing(cluster.keys_file).records()
    if as_json:
        show.document(
            [
                {
                    "id": r.id,
                    "name": r.name,
                    "tenant": r.tenant,
                    "role": r.role,
                    "priority": r.priority,
                    "created": r.created,
                }
                for r in records
            ]
        )
        return
    rows = [
        (r.id, r.name, r.tenant, r.role, str(r.priority), datetime.fromtimestamp(r.created, UTC).isoformat())
        for r in records
    ]
    show.table(("id", "name", "tenant", "role", "priority", "created"), rows)


def revoke(key_id: str, file: Path | None, *, as_json: bool) -> None:
    """Forget a key, given by its public id."""
    cluster = settle(file).settings.cluster
    with folders.writing(cluster):
        gone = KeyRing(cluster.keys_file).revoke(key_id)
    if as_json:
        show.document({"revoked": gone.id, "name": gone.name})
    else:
        show.line(f"{gone.id} ({gone.name}) is refused from now on")


def first(cluster: ClusterSettings) -> str | None:
    """A key for the person who started Strata, unless there is one already."""
    ring = KeyRing(cluster.keys_file)
    with folders.writing(cluster):
        if any(record.name != OPERATOR for record in ring.records()):
            return None
        return ring.issue("first", "default", "admin", int(time.time()))


def operator(cluster: ClusterSettings) -> str:
    """The CLI's own key, made anew if it is missing or was revoked."""
    with folders.writing(cluster):
        return _operator(KeyRing(cluster.keys_file), cluster.operator_key_file)


def _operator(ring: KeyRing, path: Path) -> str:
    try:
        key = path.read_text().strip()
        ring.verify(key)
    except (OSError, Unauthenticated):
        path.unlink(missing_ok=True)
        for record in ring.records():
            if record.name == OPERATOR:
                ring.revoke(record.id)
        key = ring.issue(OPERATOR, "default", "admin", int(time.time()))
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(key)
    return key


def mine(cluster: ClusterSettings) -> str:
    """The key to ask with: STRATA_API_KEY, or the operator's. Raises Unauthenticated."""
    given = os.environ.get("STRATA_API_KEY")
    if given:
        return given
    try:
        return cluster.operator_key_file.read_text().strip()
    except OSError:
        raise Unauthenticated(f"No key in STRATA_API_KEY or {cluster.operator_key_file}; set one") from None
