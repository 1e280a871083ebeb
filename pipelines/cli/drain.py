"""`strata drain NODE`: empty a node before it goes, without a client's notice.

Owns who is meant by NODE and what is printed. Serve starts each gang elsewhere and ends the old one when the new one
answers; what still runs then goes on with the new one, by its journal.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.directory import Entry
from cluster import runtime
from cluster.errors import InvalidRequest, NotReady
from pipelines.cli import serving, show
from pipelines.cli.config import settle
from pipelines.lookout import Lasting

_SHORTEST = 4  # characters of a node's id that may stand for it
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Node:
    """A node as Ray knows it. `names` are its address, its name and its own resources."""

    id: str
    names: frozenset[str]
    head: bool


def run(file: Path | None, word: str, minutes: float, *, as_json: bool) -> None:
    """Return when no gang is left there. Raises InvalidRequest, or NotReady after `minutes`."""
    settings = settle(file).settings
    runtime.join(settings.cluster)
    node = meant(word, [Node(*each) for each in serving.nodes()])
    before = on(node, serving.gangs())
    serving.drain(node.id, 60 * minutes)
    show.progress(f"{node.id[:8]} takes no new gangs; {len(before)} of its gangs move")
    deadline, lasting, told = time.monotonic() + 60 * minutes, Lasting(), ""
    while left := on(node, serving.gangs()):
        waits = "; ".join(lasting.of(serving.waits(settings)).values())
        if waits and waits != told:
            show.progress(waits)
        told = waits
        if time.monotonic() > deadline:
            names = ", ".join(sorted(entry.replica for entry in left))
            why = waits or "none of those that shall take their place answers; see `strata status`"
            raise NotReady(f"drain of {node.id[:8]}", f"{names} still there after {minutes:g} min: {why}")
        time.sleep(_LOOK_SECONDS)
    runtime.disconnect()
    if as_json:
        show.document({"node": node.id, "moved": sorted(entry.replica for entry in before)})
    else:
        show.line(f"{node.id[:8]} has no gang left and may be switched off.")


def meant(word: str, nodes: Sequence[Node]) -> Node:
    """The one node that `word` names: by the beginning of its id, its address or its name.

    Raises InvalidRequest for none, for several, and for the head, which holds the gateway.
    """
    found = [node for node in nodes if word in node.names or (len(word) >= _SHORTEST and node.id.startswith(word))]
    if len(found) != 1:
        there = ", ".join(sorted(node.id[:8] for node in (found or nodes)))
        raise InvalidRequest("node", word, f"{'several are called so' if found else 'name one by its id'}: {there}")
    if found[0].head:
        raise InvalidRequest(
            "node", word, "it is the head, which holds the gateway; drain the others, or `strata down`"
        )
    return found[0]


def on(node: Node, gangs: Collection[Entry]) -> list[Entry]:
    """The gangs on a node."""
    return [entry for entry in gangs if entry.node == node.id]
