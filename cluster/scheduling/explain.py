"""Decisions and refusals in words: what a gang needs, what there is, and the smallest changes that would make it fit.

Each remedy was tried on the same floor before it is told. Machines of one type are told together, so that a thousand
take a line. Knows boards and plans; decides nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster.scheduling.board import Board, spans
from cluster.scheduling.floor import Pool
from cluster.scheduling.inventory import CPU, GB
from cluster.scheduling.needs import WHOLE, Ask, Need, ask
from cluster.scheduling.plan import Key, Placed, Refused

NAMED = 3  # machines of one type that are told one by one
TYPES = 6  # types of machines that are told
TRIED = 50  # models for which changes are tried; the fleet is too small for more than that
LARGEST = 64  # tensor_parallel_size, as the settings take it


def refusals(
    board: Board, needs: Mapping[str, Need], left: Sequence[Key], proven: Collection[str]
) -> tuple[Refused, ...]:
    """What found no place, by model."""
    missing: dict[str, list[int]] = {}
    for model, replica in left:
        missing.setdefault(model, []).append(replica)
    found = []
    told: dict[tuple[int, Ask], str] = {}
    for number, (model, replicas) in enumerate(missing.items()):
        need = needs[model]
        remedies = [*_changes(board, need)] if number < TRIED else []
        remedies.append(more_nodes(board, need, len(replicas)))
        there = _there(board, need, told)
        found.append(Refused(model, len(replicas), asked(need), there, tuple(remedies), model in proven))
    return tuple(found)


def notes(board: Board, spare: int) -> tuple[str, ...]:
    """Where room for failover was wished for and is not there."""
    said = []
    for pool in board.floor.pools:
        kept = sum(place in board.floor.held for place in pool.members)
        if kept < spare:
            said.append(f"{kept} of {spare} spare nodes are kept of {type_of(pool)}: a lost node's gangs may not fit")
    return tuple(said)


def decision(gang: Placed) -> str:
    """Why a gang stands where it does."""
    unit = gang.ask.kind
    seats = " and ".join(
        f"{seat.shards} {unit} of {seat.node}" if len(gang.seats) > 1 else seat.node for seat in gang.seats
    )
    if gang.ask.shared:
        seats += f", {gang.ask.parts / WHOLE:.0%} of {unit} {gang.seats[0].devices[0]}"
    siblings = f"{gang.why.beside or 'none'} of the model on it, {gang.why.in_zone or 'none'} in its zone before"
    how = {
        "fits": "the fullest that has room",
        "packed": "found by a search of all arrangements",
        "made room": "others were moved for it",
        "moved": "moved to make room for another",
        "spare": "a node that was kept spare, as nothing else has room",
    }[gang.why.way]
    return f"{gang.model}/{gang.replica} on {seats}: {how}; {siblings}; {gang.why.left} {unit} stay free there"


def asked(need: Need) -> str:
    """What one gang needs."""
    parts = []
    for kind in need.kinds:
        if kind == CPU:
            memory = (need.shard_bytes + need.host_bytes) * need.degree
            each = f"{need.degree * need.cores:g} CPU" + (f" and {_size(memory)} of memory" if memory else "")
        else:
            each = f"{need.degree} {kind}" + (f" with {_size(need.shard_bytes)} each" if need.shard_bytes else "")
        parts.append(each)
    types = f" of type {' or '.join(need.accelerators)}" if need.accelerators else ""
    labels = "".join(f" labelled {key}={value}" for key, value in sorted(need.labels.items()))
    return f"{' or '.join(parts)}{types} on one node{labels}"


def type_of(pool: Pool) -> str:
    """A type of machine, in words."""
    labels = "".join(f", {key}={value}" for key, value in pool.labels)
    if pool.devices is None:
        return f"CPU alone{labels}"
    size = f" of {_size(pool.devices.memory)}" if pool.devices.memory else ""
    return f"{pool.devices.count} {pool.devices.name or pool.devices.kind}{size}{labels}"


def more_nodes(board: Board, need: Need, gangs: int) -> str:
    """The fewest further nodes of a type that is there already on which the gangs fit; else what one would need."""
    found = []
    for rank, (pool, wanted) in enumerate(board.options(need)):
        room = board.floor.empty_room(pool.largest, wanted)
        if room >= wanted.shards:
            found.append(
                (-(-gangs // (room // wanted.shards)), rank, f"like {board.floor.nodes[pool.largest].name}", pool)
            )
        elif room and pool.domains:
            count = -(-wanted.shards // room)
            found.append((gangs * count, rank, f"in {'a domain' if gangs == 1 else 'domains'} of {count}", pool))
    if not found:
        return f"add a node that has {asked(need).removesuffix(' on one node')}"
    count, _, like, pool = min(found, key=lambda each: each[:2])
    return f"add {count} {'node' if count == 1 else 'nodes'} {like} ({type_of(pool)})"


def _changes(board: Board, need: Need) -> Iterator[str]:
    """Settings of the model with which all its gangs fit on what is free."""
    lighter = [name for name, size in need.weights.items() if size < need.weights[need.precision]]
    for precision in sorted(lighter, key=lambda name: (-need.weights[name], name)):
        if _fits(board, replace(need, precision=precision)):
            yield f"use {precision} weights"
            break
    for degree in _degrees(board, need):
        if _fits(board, replace(need, degree=degree)):
            yield f"set tensor_parallel_size: {degree}"
            break
    placed = sum(key[0] == need.model for key in board.placed)
    if placed:
        yield f"set replicas and spares to {placed} together" if need.spares else f"set replicas: {placed}"


def _degrees(board: Board, need: Need) -> list[int]:
    """Other degrees, the nearest first; smaller ones only where a shard is not too large already."""
    doubled = [need.degree * 2**power for power in range(1, 7) if need.degree * 2**power <= LARGEST]
    halved = [need.degree // 2**power for power in range(1, 7) if need.degree % 2**power == 0]
    return [*halved, *doubled] if board.options(need) else doubled


def _fits(board: Board, need: Need) -> bool:
    """Whether all gangs of the model, changed, would have room where the others stay; the board is as before."""
    before = [board.lift(key) for key in [key for key in board.placed if key[0] == need.model]]
    placed = []
    for replica in range(need.replicas):
        gang = board.place(need, replica)
        if gang is None:
            break
        placed.append(gang.key)
    for key in placed:
        board.lift(key)
    for gang in before:
        board.keep(gang)
    return len(placed) == need.replicas


def _there(board: Board, need: Need, told: dict[tuple[int, Ask], str]) -> str:
    """What every type of machine has; `told` keeps what was said of it to another model that asks the same."""
    said = []
    asks = {id(pool): wanted for pool, wanted in reversed(board.options(need))}
    for pool in board.floor.pools:
        wanted = asks.get(id(pool))
        if wanted is None:
            said.append(f"{_who(board, pool)}: {_unfit(pool, need)}")
            continue
        if (id(pool), wanted) not in told:
            told[id(pool), wanted] = f"{_who(board, pool)}: {_room(board, pool, wanted)}"
        said.append(told[id(pool), wanted])
    more = [f"and {len(said) - TYPES} more types"] if len(said) > TYPES else []
    return ", ".join(said[:TYPES] + more) or "no node"


def _who(board: Board, pool: Pool) -> str:
    """Machines of one type: by name if there are few."""
    nodes = [board.floor.nodes[place].name for place in pool.members[: NAMED + 1]]
    who = " and ".join(nodes) if len(nodes) <= NAMED else f"{len(pool.members)} nodes like {nodes[0]}"
    return f"{who} ({type_of(pool)})"


def _room(board: Board, pool: Pool, wanted: Ask) -> str:
    """What is free on machines of one type of what a gang asks."""
    floor, members = board.floor, pool.members
    free = [0 if place in floor.held else _free(board, place, wanted) for place in members]
    if len(members) <= NAMED:
        said = " and ".join(f"{count:g}" for count in free) + f" {wanted.kind} free"
    else:
        said = f"{sum(free):g} {wanted.kind} free, at most {max(free):g} on one"
    held = sum(place in floor.held for place in members)
    said += f", {held} kept spare" if held else ""
    wish = wanted.shards * (wanted.parts or wanted.cores) / WHOLE
    fits = wish <= max(free) and not spans(pool, wanted)
    return said + (f", but not what it needs beside {wanted.kind}" if fits else "")


def _free(board: Board, place: int, wanted: Ask) -> float:
    if wanted.shared:
        return round(max(board.floor.parts[place]) / WHOLE, 2)
    return board.floor.whole[place] if wanted.parts else board.floor.cores[place] / WHOLE


def _unfit(pool: Pool, need: Need) -> str:
    """Why machines of this type can never hold the gang."""
    if pool.devices is None or pool.devices.kind not in need.kinds:
        return "not of a kind that it can use"
    if need.accelerators and pool.devices.name not in need.accelerators:
        return "not of a type that it can use"
    if not set(need.labels.items()) <= set(pool.labels):
        return "without its labels"
    if ask(need, pool.devices.kind, pool.devices) is None:
        return f"{_size(need.shard_bytes)} are too much for one"
    return f"too few for {need.degree} and no fast interconnect between nodes"


def _size(size: int) -> str:
    return f"{size / GB:.3g} GB"
