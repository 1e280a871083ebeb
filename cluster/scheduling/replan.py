"""A plan carried over to machines or models that changed: what can stay stays where it is.

Moves only gangs whose machine is gone or whose needs are others now, and never moves a running gang for another's sake:
where that would help, the refusal says so. Knows plans and needs; what of it runs already is not known here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cluster.scheduling.board import Board
from cluster.scheduling.bounds import overfull
from cluster.scheduling.floor import Floor
from cluster.scheduling.inventory import Node
from cluster.scheduling.needs import Need
from cluster.scheduling.packing import (
    Left,
    by_model,
    concluded,
    from_spare,
    label_keys,
    make_room,
    possible,
    spares,
    urgency,
)
from cluster.scheduling.plan import Key, Placed, Plan, Refused


def replan(before: Plan, nodes: Iterable[Node], needs: Iterable[Need], spare: int = 0) -> Plan:
    """Where every gang stands on the nodes that there are now. A gang that lost one node of several moves whole."""
    asked = by_model(needs)
    board = Board(Floor(nodes, label_keys(asked.values())))
    missing = dict.fromkeys((need.model, replica) for need in asked.values() for replica in range(need.replicas))
    same, other = _kept(before, board, asked)
    board.keep_all({key: gang for key, gang in same.items() if key in missing})
    for key in board.placed:
        del missing[key]
    for gang in other:
        if gang.key in missing and stays(board, gang, asked[gang.model]):
            board.keep(gang)
            del missing[gang.key]
    board.floor.open(spares(board.floor, spare))
    left = _placed(board, asked, missing)
    if left.gangs:
        left = _whole(board, asked, before, left)
    plan = concluded(board, asked, left, spare)
    return replace(plan, refused=tuple(_with_moves(board, asked, refused, left) for refused in plan.refused))


def _kept(before: Plan, board: Board, needs: Mapping[str, Need]) -> tuple[dict[Key, Placed], list[Placed]]:
    """Gangs whose model and nodes are what they were, and those to be looked at again."""
    floor, there, asked = board.floor, before.nodes, before.needs
    nodes = {node.name for node in floor.nodes if there.get(node.name) == node}
    models = {model for model, need in needs.items() if asked.get(model) == need}
    same: dict[Key, Placed] = {}
    other = []
    for key, gang in before.placed.items():
        if key[0] in models and (
            gang.seats[0].node in nodes if len(gang.seats) == 1 else all(seat.node in nodes for seat in gang.seats)
        ):
            same[key] = gang
        else:
            other.append(gang)
    return same, other


def stays(board: Board, gang: Placed, need: Need) -> bool:
    """Whether a gang's nodes are there, of the same type, with room as before, and it asks what it asked."""
    floor = board.floor
    places = [floor.index.get(seat.node, -1) for seat in gang.seats]
    if -1 in places or len({floor.nodes[place].domain for place in places}) > 1:
        return False
    pools = [floor.pool_of[place] for place in places]
    able = [pool for pool, asked in board.options(need) if asked == gang.ask]
    if len({pool.devices for pool in pools}) > 1 or not all(any(pool is each for each in able) for pool in pools):
        return False
    return all(
        _seated(floor, place, gang, seat.shards, seat.devices) for place, seat in zip(places, gang.seats, strict=True)
    )


def _seated(floor: Floor, place: int, gang: Placed, shards: int, devices: tuple[int, ...]) -> bool:
    parts = floor.parts[place]
    return (
        all(device < len(parts) and parts[device] >= gang.ask.parts for device in devices)
        and floor.cores[place] >= shards * gang.ask.cores
        and floor.memory[place] >= shards * gang.ask.memory
    )


def _placed(board: Board, needs: Mapping[str, Need], missing: Iterable[Key]) -> Left:
    """Place what has no place where there is room, on spare nodes at last; what is left."""
    left = Left()
    for model, replica in sorted(missing, key=lambda key: urgency(board, needs[key[0]], key[1])):
        need = needs[model]
        if model in left.models or not (board.place(need, replica) or from_spare(board, need, replica)):
            left.gangs.append((model, replica))
            left.models.add(model)
    if left.gangs:
        hopeless = {model for model in left.models if not possible(board, needs[model])}
        left.proven = hopeless | (left.models & overfull(board, needs))
    return left


def _whole(board: Board, needs: Mapping[str, Need], before: Plan, left: Left) -> Left:
    """Where gangs of a lost node were left over, move all of that node's, seat by seat, to an empty node of its type.

    Packing what remains anew may need more room than it had; an exact copy never does.
    """
    floor = board.floor
    lost = sorted(
        {seat.node for key in left.gangs if key in before.placed for seat in before.placed[key].seats}
        - set(floor.index)
    )
    for name in lost:
        there = [gang for gang in before.placed.values() if any(seat.node == name for seat in gang.seats)]
        there = [gang for gang in there if len(gang.seats) == 1 and gang.model in needs]
        moved = [board.lift(gang.key) for gang in there if gang.key in board.placed]
        if not _copied(board, needs, there):
            for gang in moved:
                board.keep(gang)
    rest = [key for key in left.gangs if key not in board.placed]
    models = {model for model, _ in rest}
    return Left(rest, models, left.proven & models)


def _copied(board: Board, needs: Mapping[str, Need], gangs: list[Placed]) -> bool:
    floor = board.floor
    for place in range(len(floor.nodes)):
        if not floor.empty(place):
            continue
        name = floor.nodes[place].name
        copies = [replace(gang, seats=(replace(gang.seats[0], node=name),)) for gang in gangs]
        done = []
        if place in floor.held:
            floor.release(place)
        for gang in copies:
            if gang.replica >= needs[gang.model].replicas or not stays(board, gang, needs[gang.model]):
                break
            board.keep(gang)
            board.retell(gang.key, "spare")
            done.append(gang.key)
        if len(done) == len(copies):
            return True
        for key in done:
            board.lift(key)
    return False


def _with_moves(board: Board, needs: Mapping[str, Need], refused: Refused, left: Left) -> Refused:
    """The refusal, with the moves of others that would make room for one gang, if there are."""
    if refused.proven:
        return refused
    replica = next(replica for model, replica in left.gangs if model == refused.model)
    before = dict(board.placed)
    moved = make_room(board, needs, needs[refused.model], replica)
    if not moved:
        return refused
    said = [
        f"{model}/{number} from {_on(before[model, number])} to {_on(board.placed[model, number])}"
        for model, number in moved
    ]
    for key in [*moved, (refused.model, replica)]:
        board.lift(key)
    for key in moved:
        board.keep(before[key])
    return replace(refused, remedies=(f"move {' and '.join(said)}", *refused.remedies))


def _on(gang: Placed) -> str:
    return " and ".join(seat.node for seat in gang.seats)
