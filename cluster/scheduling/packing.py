"""All gangs onto an empty fleet: their order, room kept for failover, and what to try when one is left over.

Large gangs come first and each goes to the fullest node that has room (best fit decreasing). A gang that is left over
gets a hole made by moving smaller ones, then a node kept spare, then, where the fleet is small, a search of all
arrangements: nothing small is refused that could be placed. Deterministic; the order of the arguments does not matter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.scheduling import explain, search
from cluster.scheduling.board import Board, spans
from cluster.scheduling.bounds import overfull
from cluster.scheduling.floor import Floor, Pool
from cluster.scheduling.inventory import Node
from cluster.scheduling.needs import Ask, Need
from cluster.scheduling.plan import Key, Plan

NODES_TRIED = 16  # nodes of a pool on which a hole is looked for, those with most room first
GANGS_TRIED = 16  # gangs of such a node that are moved, the smallest first


@dataclass(slots=True)
class Left:
    """What found no place, and of which models it is proven that it cannot."""

    gangs: list[Key] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    proven: set[str] = field(default_factory=set)


def plan(nodes: Iterable[Node], needs: Iterable[Need], spare: int = 0) -> Plan:
    """Where every gang shall stand. `spare` nodes of each type stay empty, as far as the gangs leave any.

    A lost node's gangs then fit on a spare one of its type; a gang that spans nodes needs it in its own domain.
    """
    asked = by_model(needs)
    board = Board(Floor(nodes, label_keys(asked.values())))
    board.floor.open(spares(board.floor, spare))
    gangs = [(need, replica) for need in asked.values() for replica in range(need.replicas)]
    left = settle(board, asked, gangs)
    if left.gangs:
        board = _searched(board, asked, left, spare)
    return concluded(board, asked, left, spare)


def settle(board: Board, needs: Mapping[str, Need], gangs: Iterable[tuple[Need, int]]) -> Left:
    """Place gangs, moving any other for it that helps; what is left."""
    left = Left()
    for need, replica in sorted(gangs, key=lambda gang: urgency(board, *gang)):
        if need.model in left.models or not (
            board.place(need, replica) or make_room(board, needs, need, replica) or from_spare(board, need, replica)
        ):
            left.gangs.append((need.model, replica))
            left.models.add(need.model)
    if left.gangs:
        hopeless = {model for model in left.models if not possible(board, needs[model])}
        left.proven = hopeless | (left.models & overfull(board, needs))
    return left


def _searched(board: Board, needs: Mapping[str, Need], left: Left, spare: int) -> Board:
    """The board on which all stands that can stand at all, if a search of a small fleet finds one; else as it was."""
    hopeful = [key for key in left.gangs if key[0] not in left.proven]
    gangs = sorted(((needs[key[0]], key[1]) for key in [*board.placed, *hopeful]), key=lambda g: urgency(board, *g))
    verdict: bool | None = None if hopeful else True
    for kept in sorted({spare, 0}, reverse=True) if hopeful else ():
        trial = Board(Floor(board.floor.nodes, label_keys(needs.values())))
        trial.floor.open(spares(trial.floor, kept))
        verdict = search.arrange(trial, gangs)
        if verdict:
            left.gangs = [key for key in left.gangs if key not in set(hopeful)]
            return trial
    if verdict is False:
        left.proven |= {model for model, _ in hopeful}
    return board


def make_room(board: Board, needs: Mapping[str, Need], need: Need, replica: int) -> list[Key]:
    """Place a gang on one node by moving others from it to where they have room; the moved ones, none if in vain."""
    for pool, asked in board.options(need):
        if spans(pool, asked):
            continue
        for place in _roomiest(board, pool, asked):
            there = [gang.key for gang in board.on(place)][:GANGS_TRIED]
            for keys in [[key] for key in there] + [there[:count] for count in range(2, len(there) + 1)]:
                if _swapped(board, needs, need, replica, asked, place, keys):
                    return keys
    return []


def _roomiest(board: Board, pool: Pool, asked: Ask) -> list[int]:
    """Nodes of a pool to make room on; none where all of them together have too little left."""
    floor = board.floor
    if floor.slack(pool, asked) < asked.shards * (asked.parts or asked.cores):
        return []
    members = [place for place in pool.members if place not in floor.held]
    return sorted(members, key=lambda place: (-floor.whole[place], -floor.cores[place], place))[:NODES_TRIED]


def _swapped(
    board: Board, needs: Mapping[str, Need], need: Need, replica: int, asked: Ask, place: int, keys: Sequence[Key]
) -> bool:
    """Lift gangs from a node, place one on it and them elsewhere; all is as before where that fails."""
    lifted = [board.lift(key) for key in keys]
    done: list[Key] = []
    if board.floor.room(place, asked) >= asked.shards:
        board.settle(need.model, replica, asked, [(place, asked.shards, None)], "made room")
        done.append((need.model, replica))
        for gang in reversed(lifted):
            if board.place(needs[gang.model], gang.replica, "moved") is None:
                break
            done.append(gang.key)
        else:
            return True
    for key in reversed(done):
        board.lift(key)
    for gang in lifted:
        board.keep(gang)
    return False


def from_spare(board: Board, need: Need, replica: int) -> bool:
    """Place a gang by giving up nodes that were kept spare, as few as will do."""
    for pool, _ in board.options(need):
        given = []
        for place in [place for place in pool.members if place in board.floor.held]:
            board.floor.release(place)
            given.append(place)
            if board.place(need, replica, "spare", pool):
                for unused in filter(board.floor.empty, given):
                    board.floor.hold(unused)
                return True
        for place in given:
            board.floor.hold(place)
    return False


def spares(floor: Floor, count: int) -> list[int]:
    """Empty nodes to keep so: `count` of each type where there are more, from the zones with most nodes."""
    kept: list[int] = []
    for pool in floor.pools:
        empty = [place for place in pool.members if floor.empty(place)]
        taken: dict[str, int] = {}
        for _ in range(min(count, len(pool.members) - 1, len(empty))):
            sizes = {zone: -taken.get(zone, 0) for zone in pool.zones}
            for place in pool.members:
                sizes[floor.zone[place]] += 1
            place = max(empty, key=lambda place: (sizes[floor.zone[place]], place))
            empty.remove(place)
            taken[floor.zone[place]] = taken.get(floor.zone[place], 0) + 1
            kept.append(place)
    return kept


def possible(board: Board, need: Need) -> bool:
    """Whether the fleet would hold one gang if it held nothing else."""
    for pool, asked in board.options(need):
        groups = pool.domains.values() if spans(pool, asked) else ([place] for place in pool.members)
        if any(sum(board.floor.empty_room(place, asked) for place in places) >= asked.shards for places in groups):
            return True
    return False


def concluded(board: Board, needs: Mapping[str, Need], left: Left, spare: int) -> Plan:
    """The plan that the board shows."""
    refused = explain.refusals(board, needs, left.gangs, left.proven)
    kept = tuple(board.floor.nodes[place].name for place in sorted(board.floor.held))
    nodes = {node.name: node for node in board.floor.nodes}
    return Plan(dict(board.placed), refused, kept, explain.notes(board, spare), nodes, needs)


def by_model(needs: Iterable[Need]) -> dict[str, Need]:
    """The needs by model, sorted."""
    return {need.model: need for need in sorted(needs, key=lambda need: need.model)}


def label_keys(needs: Iterable[Need]) -> tuple[str, ...]:
    """The labels that anybody asks for."""
    return tuple(sorted({key for need in needs for key in need.labels}))


def urgency(board: Board, need: Need, replica: int) -> tuple[object, ...]:
    """What comes first: the important, the large, those with little choice."""
    options = board.options(need)
    pool, asked = options[0] if options else (None, None)
    wide = bool(pool and asked and spans(pool, asked))
    parts = asked.shards * asked.parts if asked else 0
    cores = asked.shards * asked.cores if asked else 0
    return (-need.priority, not wide, -parts, len(options), -cores, -need.shard_bytes, need.model, replica)
