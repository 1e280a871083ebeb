"""Every arrangement of a few gangs on a few nodes, until one holds them all or none is left.

Backtracking with the usual cuts: nodes that look alike are tried once, and a state of the floor that has failed for the
rest of the gangs is not entered again. Knows boards. Knows nothing of wishes beyond what fits.
"""

from collections.abc import Iterator, Sequence

from cluster.scheduling.board import Board, Spot, spans
from cluster.scheduling.needs import Ask, Need

STEPS = 20_000  # about a second; a fleet of a dozen nodes seldom needs a hundredth of it
NODES, GANGS = 32, 64  # of a larger fleet hardly any could be tried

State = tuple[object, ...]


class _Exhausted(Exception):
    """The steps are used up."""


def arrange(board: Board, gangs: Sequence[tuple[Need, int]], steps: int = STEPS) -> bool | None:
    """Whether all gangs fit, and then they are placed; None if that was not found out within the steps."""
    if len(board.floor.nodes) > NODES or len(gangs) > GANGS:
        return None
    budget, failed = [steps], set[State]()

    def fits(done: int) -> bool:
        if done == len(gangs):
            return True
        state = (done, *sorted(_looks(board, place) for place in range(len(board.floor.nodes))))
        if state in failed:
            return False
        need, replica = gangs[done]
        for asked, spot in _spots(board, need):
            budget[0] -= 1
            if budget[0] < 0:
                raise _Exhausted
            gang = board.settle(need.model, replica, asked, spot, "packed")
            if fits(done + 1):
                return True
            board.lift(gang.key)
        failed.add(state)
        return False

    try:
        return fits(0)
    except _Exhausted:
        return None


def _looks(board: Board, place: int) -> tuple[int, str, tuple[int, ...], int, int]:
    """All of a node that decides what fits on it."""
    floor = board.floor
    pool = floor.pool_of[place]
    number = next(number for number, each in enumerate(floor.pools) if each is pool)
    parts = tuple(sorted(floor.parts[place]))
    return number, floor.nodes[place].domain, parts, floor.cores[place], floor.memory[place]


def _spots(board: Board, need: Need) -> Iterator[tuple[Ask, Spot]]:
    """Where a gang may stand, alike places once, those away from its siblings first."""
    floor, standing = board.floor, board.standing(need.model)
    for pool, asked in board.options(need):
        if spans(pool, asked):
            for members in board.domains(need, pool):
                rooms = [(place, floor.room(place, asked)) for place in members]
                yield from ((asked, spot) for spot in _shares(rooms, asked.shards))
            continue
        seen = set()
        free = [place for place in pool.members if place not in floor.held]
        nodes, zones = standing.nodes, standing.zones
        free.sort(key=lambda place: (nodes.get(place, 0), zones.get(floor.zone[place], 0), place))
        for place in free:
            looks = _looks(board, place)
            if looks in seen or floor.room(place, asked) < asked.shards:
                continue
            seen.add(looks)
            for devices in _devices(floor.parts[place], asked):
                yield asked, [(place, asked.shards, devices)]


def _devices(parts: Sequence[int], asked: Ask) -> list[tuple[int, ...] | None]:
    """The devices of a node that a gang may share, alike ones once, the fullest first; None: no choice to make."""
    if not asked.shared:
        return [None]
    alike = {free: device for device, free in enumerate(parts) if free >= asked.parts}
    return [(alike[free],) for free in sorted(alike)]


def _shares(rooms: Sequence[tuple[int, int]], shards: int) -> Iterator[Spot]:
    """Every way to spread shards over nodes."""
    if not shards:
        yield []
    elif rooms:
        (place, room), rest = rooms[0], rooms[1:]
        for here in range(min(room, shards), -1, -1):
            for others in _shares(rest, shards - here):
                yield ([(place, here, None)] if here else []) + others
