"""Gangs on the floor: where the next one of a model goes, put there or lifted again.

Knows the rule of choice: the first kind that the model prefers, the smallest devices of it that suffice; there not
beside a gang of the same model, in the zone with the fewest of them, and on the fullest node that still has room, so
that large holes stay whole for large gangs. Knows nothing of the order in which gangs come.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.scheduling.floor import Floor, Pool, Zones
from cluster.scheduling.inventory import CPU
from cluster.scheduling.needs import WHOLE, Ask, Need, Spread, ask
from cluster.scheduling.plan import Key, Placed, Seat, Why

Option = tuple[Pool, Ask]
Spot = list[tuple[int, int, tuple[int, ...] | None]]  # node, shards there, devices if they are chosen


@dataclass(slots=True)
class Standing:
    """Where gangs of one model stand already."""

    nodes: Counter[int] = field(default_factory=Counter)
    zones: Counter[str] = field(default_factory=Counter)

    def levels(self) -> list[int]:
        """How many siblings a node may hold, least first."""
        return [0, *sorted(set(self.nodes.values()))]

    def ordered(self, zones: Sequence[str], spread: Spread) -> Zones:
        """The zones with the fewest siblings first; all are equal to a model that does not ask for zones."""
        if spread != "zone" or len(zones) == 1:
            return [zones]
        equal: dict[int, list[str]] = {}
        for zone in zones:
            equal.setdefault(self.zones[zone], []).append(zone)
        return [equal[count] for count in sorted(equal)]


class Board:
    """The floor, and which gang stands where on it."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.placed: dict[Key, Placed] = {}
        self._standing: dict[str, Standing] = {}
        self._options: dict[tuple[object, ...], list[Option]] = {}
        self._kept: dict[str, list[Placed]] | None = {}  # None: not sorted by model yet
        self._on: dict[str, dict[Key, None]] | None = None  # None: nobody has asked yet

    def options(self, need: Need) -> list[Option]:
        """The pools that can ever hold a gang, in order of preference, and what it asks there."""
        told = (need.kinds, need.accelerators, need.shard_bytes, need.degree, need.shares, need.cores, need.host_bytes)
        key = (*told, tuple(sorted(need.labels.items())))
        if key not in self._options:
            self._options[key] = self._sorted(need)
        return self._options[key]

    def _sorted(self, need: Need) -> list[Option]:
        found = []
        wanted = set(need.labels.items())
        for rank, kind in enumerate(need.kinds):
            for number, pool in enumerate(self.floor.pools):
                asked = ask(need, kind, pool.devices) if wanted <= set(pool.labels) else None
                if asked is not None and (kind == CPU or pool.domains or need.degree <= pool.count):
                    memory = pool.devices.memory if pool.devices else 0
                    found.append(((rank, kind == CPU and pool.count > 0, memory, pool.count, number), (pool, asked)))
        return [option for _, option in sorted(found, key=lambda each: each[0])]

    def place(self, need: Need, replica: int, way: str = "fits", only: Pool | None = None) -> Placed | None:
        """Put one gang where it stands best by what is free; None if nothing has room."""
        standing = self.standing(need.model)
        for pool, asked in self.options(need):
            if only is None or pool is only:
                spot = self.spot(need, pool, asked, standing)
                if spot is not None:
                    return self.settle(need.model, replica, asked, spot, way)
        return None

    def spot(self, need: Need, pool: Pool, asked: Ask, standing: Standing) -> Spot | None:
        """The best place in one pool."""
        if spans(pool, asked):
            return self._domain(need, pool, asked, standing)
        zones = standing.ordered(pool.zones, need.spread)
        if need.spread == "none" or not standing.nodes:
            return self._first(pool, asked, zones, None, standing)
        spots = (self._first(pool, asked, zones, level, standing) for level in standing.levels())
        return next((spot for spot in spots if spot is not None), None)

    def _first(self, pool: Pool, asked: Ask, zones: Zones, level: int | None, standing: Standing) -> Spot | None:
        """The fullest node with room among those that hold `level` siblings."""
        cores, memory = self.floor.cores, self.floor.memory
        wanted_cores, wanted_memory = asked.shards * asked.cores, asked.shards * asked.memory
        for place, devices in self.floor.fullest(pool, asked, zones):
            if level is not None and standing.nodes.get(place, 0) != level:
                continue
            if cores[place] >= wanted_cores and memory[place] >= wanted_memory:
                return [(place, asked.shards, devices)]
        return None

    def domains(self, need: Need, pool: Pool) -> list[list[int]]:
        """For each interconnect domain of such machines, the nodes in it that a gang may use."""
        floor, wanted = self.floor, set(need.labels.items())
        return [
            [p for p in members if p not in floor.held and (not wanted or wanted <= set(floor.pool_of[p].labels))]
            for members in pool.domains.values()
        ]

    def _domain(self, need: Need, pool: Pool, asked: Ask, standing: Standing) -> Spot | None:
        """Nodes of the fullest domain that has room: whole nodes first, then the fullest that takes the rest."""
        floor, found = self.floor, []
        for number, members in enumerate(self.domains(need, pool)):
            rooms = [(floor.room(place, asked), place) for place in members]
            total = sum(room for room, _ in rooms)
            if total >= asked.shards:
                siblings = sum(standing.nodes.get(place, 0) for place in members)
                found.append((siblings, standing.zones[floor.zone[members[0]]], total, number, rooms))
        return filled(min(found)[-1], asked.shards) if found else None

    def settle(self, model: str, replica: int, asked: Ask, spot: Spot, way: str) -> Placed:
        """Put a gang on nodes that have room for it."""
        floor = self.floor
        standing = self.standing(model)
        zone = floor.zone[spot[0][0]]
        beside, in_zone = max(standing.nodes.get(place, 0) for place, _, _ in spot), standing.zones.get(zone, 0)
        seats = []
        for place, shards, devices in spot:
            taken = floor.take(place, asked, shards, devices)
            seats.append(Seat(floor.nodes[place].name, shards, taken))
        left = sum(floor.whole[place] if asked.parts else floor.cores[place] // WHOLE for place, _, _ in spot)
        gang = Placed(model, replica, asked, tuple(seats), Why(left, beside, in_zone, way))
        self._count(gang, 1)
        self.placed[gang.key] = gang
        return gang

    def standing(self, model: str) -> Standing:
        """Where the gangs of a model stand."""
        if model not in self._standing:
            self._standing[model] = standing = Standing()
            for gang in self._kept_of(model):
                self._add(standing, gang, 1)
        return self._standing[model]

    def keep_all(self, gangs: Mapping[Key, Placed]) -> None:
        """Put gangs exactly where they stood, on a board that is empty and not open yet."""
        floor = self.floor
        index, parts, whole, cores, memory = floor.index, floor.parts, floor.whole, floor.cores, floor.memory
        for gang in gangs.values():
            asked = gang.ask
            for seat in gang.seats:  # as Floor.take does it; most of a new plan's time would go to the calls
                place = index[seat.node]
                free = parts[place]
                for device in seat.devices:
                    whole[place] -= free[device] == WHOLE
                    free[device] -= asked.parts
                cores[place] -= seat.shards * asked.cores
                memory[place] -= seat.shards * asked.memory
        self.placed = dict(gangs)
        self._kept = None

    def keep(self, gang: Placed) -> None:
        """Put a gang exactly where it stood."""
        for seat in gang.seats:
            self.floor.take(self.floor.index[seat.node], gang.ask, seat.shards, seat.devices)
        self._count(gang, 1)
        self.placed[gang.key] = gang

    def lift(self, key: Key) -> Placed:
        """Take a gang away."""
        gang = self.placed[key]
        self._count(gang, -1)
        for seat in gang.seats:
            self.floor.give(self.floor.index[seat.node], gang.ask, seat.shards, seat.devices)
        return self.placed.pop(key)

    def retell(self, key: Key, way: str) -> None:
        """Note how a gang came to its place."""
        gang = self.placed[key]
        self.placed[key] = replace(gang, why=replace(gang.why, way=way))

    def on(self, place: int) -> Iterator[Placed]:
        """The gangs on a node, the smallest first."""
        if self._on is None:
            self._on = {}
            for gang in self.placed.values():
                self._stand(self._on, gang, 1)
        found = [self.placed[key] for key in self._on.get(self.floor.nodes[place].name, ())]
        yield from sorted(found, key=lambda gang: (gang.ask.shards * gang.ask.parts, gang.ask.shards, gang.key))

    def _kept_of(self, model: str) -> list[Placed]:
        if self._kept is None:
            self._kept = {}
            for gang in self.placed.values():
                self._kept.setdefault(gang.model, []).append(gang)
        return self._kept.get(model, [])

    def _count(self, gang: Placed, sign: int) -> None:
        """Remember that a gang comes, before it is among those placed, or goes, before it is taken from them."""
        self._add(self.standing(gang.model), gang, sign)
        if self._on is not None:
            self._stand(self._on, gang, sign)

    def _add(self, standing: Standing, gang: Placed, sign: int) -> None:
        index = self.floor.index
        for seat in gang.seats:
            place = index[seat.node]
            standing.nodes[place] += sign
            if not standing.nodes[place]:
                del standing.nodes[place]
        standing.zones[self.floor.zone[index[gang.seats[0].node]]] += sign

    @staticmethod
    def _stand(on: dict[str, dict[Key, None]], gang: Placed, sign: int) -> None:
        for seat in gang.seats:
            if sign > 0:
                on.setdefault(seat.node, {})[gang.key] = None
            else:
                del on[seat.node][gang.key]


def spans(pool: Pool, asked: Ask) -> bool:
    """Whether a gang is too large for one such machine."""
    return asked.parts > 0 and asked.shards > pool.count


def filled(rooms: Sequence[tuple[int, int]], shards: int) -> Spot:
    """Nodes that together take the shards: those with most room, and for the rest the one with the least that does."""
    spot: Spot = []
    for room, place in sorted(rooms, key=lambda each: (-each[0], each[1])):
        if room >= shards:
            last = min((room, place) for room, place in rooms if room >= shards and place not in {p for p, *_ in spot})
            return [*spot, (last[1], shards, None)]
        spot.append((place, room, None))
        shards -= room
    raise ValueError("the rooms do not take the shards")
