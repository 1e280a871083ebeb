"""What Serve says of a deployment, as the one sentence in it that a person can use.

Serve reports a failed constructor as a traceback of tracebacks, with colours; its cause stands in the last line that
begins like an exception. Knows texts; asks nobody.
"""

import re

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RAISED = re.compile(
    r"(?:[A-Za-z_][\w]*\.)*([A-Z]\w*(?:Error|Exception|Invalid|Unsupported|Impossible|Lost|Ready"
    r"|Unavailable|Missing|Failed|Interrupt|Exit|Exceeded))(?:: (.*))?$"
)
OURS = ("cluster.errors.",)
DIED = (
    "health check failed",
    "ActorDiedError",
    "ActorUnavailableError",
    "RayActorError",
    "WorkerCrashedError",
    "ReplicaLost",
)
LONGEST = 300


def sentence(message: str) -> str:
    """The useful part of what Serve says, on one line."""
    lines = [COLOUR.sub("", line).strip() for line in message.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        return ""
    if any(kind in message for kind in DIED) and not _ours(lines):
        return "a shard died or was lost; a new gang is being made"
    alert = next((line for line in lines if "[ALERT]" in line), "")  # HAProxy's word, below lines of no import
    cause = _ours(lines) or alert or _raised(lines) or lines[-1]
    return cause if len(cause) <= LONGEST else cause[: LONGEST - 1] + "…"


def _ours(lines: list[str]) -> str:
    """What one of our own errors says: they are sentences already."""
    for line in reversed(lines):
        if line.startswith(OURS):
            name, _, text = line.partition(": ")
            if text and not name.endswith("ReplicaLost"):
                return text
    return ""


def _raised(lines: list[str]) -> str:
    """The last line that begins like an exception, with its name, as `KeyError: 'x'` says little without."""
    for line in reversed(lines):
        if (found := RAISED.match(line)) and not line.startswith("ray."):
            return f"{found[1]}: {found[2]}" if found[2] else found[1]
    return ""
