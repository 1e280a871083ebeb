"""What is free on every machine, kept so that the fullest machine that still fits is found without a search.

Knows nodes, devices and what was taken of them. Machines of one type form a pool; in it, nodes stand in buckets by zone
and by how much of them is free (whole devices, or whole cores), and devices that are shared in lists by free parts.
The only thing here that changes. Knows nothing of models or of why a node is chosen.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cluster.scheduling.inventory import Accelerators, Node
from cluster.scheduling.needs import WHOLE, Ask

Buckets = dict[str, list[dict[int, None]]]  # zone -> free count -> nodes; a dict, for it keeps the order and is a set
Zones = Sequence[Sequence[str]]  # zones in order of preference, those that are equal together


@dataclass(slots=True)
class Pool:
    """Machines with like accelerators and like values of the labels that anybody asks for.

    `domains` are those of all machines with like accelerators, whatever their labels: a gang may span them.
    """

    devices: Accelerators | None
    labels: tuple[tuple[str, str], ...]
    members: list[int] = field(default_factory=list)
    zones: list[str] = field(default_factory=list)
    domains: dict[str, list[int]] = field(default_factory=dict)
    by_devices: Buckets = field(default_factory=dict)
    by_cores: Buckets = field(default_factory=dict)
    shared: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)  # (free parts, node, device)

    largest: int = 0  # the member with most cores and memory

    @property
    def count(self) -> int:
        """Devices of one machine."""
        return self.devices.count if self.devices else 0


class Floor:
    """The machines and what is free on them. `keys` are the labels that needs name."""

    def __init__(self, nodes: Iterable[Node], keys: Sequence[str] = ()) -> None:
        self.nodes = sorted(nodes, key=lambda node: node.name)
        self.index = {node.name: place for place, node in enumerate(self.nodes)}
        self.parts = [[WHOLE] * (node.accelerators.count if node.accelerators else 0) for node in self.nodes]
        self.whole = [len(parts) for parts in self.parts]
        self.all_cores = [int(node.cores * WHOLE + 0.5) for node in self.nodes]
        self.cores = list(self.all_cores)
        self.memory = [node.memory for node in self.nodes]
        self.zone = [node.zone for node in self.nodes]
        self.held: set[int] = set()
        self.pools: list[Pool] = []
        self.pool_of: list[Pool] = []
        self._sort_into_pools(keys)
        self._open = False

    def open(self, held: Iterable[int]) -> None:
        """Stand the nodes in their buckets, those `held` apart. Until then taking and giving is cheaper."""
        self.held = set(held)
        self._open = True
        for pool in self.pools:
            most = max(self.all_cores[place] for place in pool.members) // WHOLE
            pool.by_devices = {zone: [{} for _ in range(pool.count + 1)] for zone in pool.zones}
            pool.by_cores = {zone: [{} for _ in range(most + 1)] for zone in pool.zones}
            pool.shared = {zone: [] for zone in pool.zones}
        for place in range(len(self.nodes)):
            if place not in self.held:
                self._enter(place)

    def release(self, place: int) -> None:
        """Let a held node be used."""
        self.held.remove(place)
        self._enter(place)

    def hold(self, place: int) -> None:
        """Keep a node from being used."""
        self._leave(place)
        self.held.add(place)

    def empty(self, place: int) -> bool:
        """Whether nothing stands on the node."""
        return (
            self.whole[place] == len(self.parts[place])
            and self.cores[place] == self.all_cores[place]
            and self.memory[place] == self.nodes[place].memory
        )

    def room(self, place: int, ask: Ask) -> int:
        """How many shards of a gang the node takes besides what it holds."""
        room = ask.shards
        if ask.shared:
            room = sum(free // ask.parts for free in self.parts[place])
        elif ask.parts:
            room = self.whole[place]
        if ask.cores:
            room = min(room, self.cores[place] // ask.cores)
        return min(room, self.memory[place] // ask.memory) if ask.memory else room

    def empty_room(self, place: int, ask: Ask) -> int:
        """How many shards of a gang the node takes when it holds nothing."""
        bounds = [len(self.parts[place]) * (WHOLE // ask.parts)] if ask.parts else []
        if ask.cores:
            bounds.append(self.all_cores[place] // ask.cores)
        if ask.memory:
            bounds.append(self.nodes[place].memory // ask.memory)
        return min(bounds)

    def take(self, place: int, ask: Ask, shards: int, devices: Sequence[int] | None = None) -> tuple[int, ...]:
        """Seat shards on a node that has room for them, on the devices named or the best; the devices."""
        if devices is None:
            devices = self._devices(place, ask, shards)
        self._change(place, ask, shards, devices, -1)
        return tuple(devices)

    def give(self, place: int, ask: Ask, shards: int, devices: Sequence[int]) -> None:
        """Undo `take`."""
        self._change(place, ask, shards, devices, 1)

    def slack(self, pool: Pool, ask: Ask) -> int:
        """Parts of devices, or of cores on CPU, that are free on all machines of a pool, give or take a core each."""
        buckets = pool.by_devices if ask.parts else pool.by_cores
        whole = sum(free * len(nodes) for counts in buckets.values() for free, nodes in enumerate(counts)) * WHOLE
        if ask.parts:
            return whole + sum(free for devices in pool.shared.values() for free, _, _ in devices)
        return whole + len(pool.members) * WHOLE

    def fullest(self, pool: Pool, ask: Ask, zones: Zones) -> Iterator[tuple[int, tuple[int, ...] | None]]:
        """Nodes that may take a whole gang, the fullest first within equal zones; with its device where it shares one.

        Cores and memory beside the accelerators are the caller's to compare: they seldom decide.
        """
        buckets = pool.by_devices if ask.parts else pool.by_cores
        least = ask.shards if ask.parts else ask.shards * ask.cores // WHOLE
        for equal in zones:
            if ask.shared:
                yield from self._sharing(pool, ask, equal)
            for free in range(least, max(len(buckets[zone]) for zone in equal)):
                for zone in equal:
                    for place in buckets[zone][free]:
                        yield place, None

    def _sharing(self, pool: Pool, ask: Ask, zones: Sequence[str]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Devices that others use already, with the fewest parts left that suffice first."""
        found: list[tuple[int, int, int]] = []
        for zone in zones:
            devices = pool.shared[zone]
            found += devices[bisect_left(devices, (ask.parts,)) :]
        for _, place, device in sorted(found) if len(zones) > 1 else found:
            yield place, (device,)

    def _devices(self, place: int, ask: Ask, shards: int) -> list[int]:
        parts = self.parts[place]
        if ask.shared:
            return [min((free, device) for device, free in enumerate(parts) if free >= ask.parts)[1]]
        return [device for device, free in enumerate(parts) if free == WHOLE][:shards] if ask.parts else []

    def _change(self, place: int, ask: Ask, shards: int, devices: Sequence[int], sign: int) -> None:
        listed = self._open and place not in self.held
        if listed:
            self._leave(place)
        for device in devices:
            before = self.parts[place][device]
            after = self.parts[place][device] = before + sign * ask.parts
            self.whole[place] += (after == WHOLE) - (before == WHOLE)
        self.cores[place] += sign * shards * ask.cores
        self.memory[place] += sign * shards * ask.memory
        if listed:
            self._enter(place)

    def _enter(self, place: int) -> None:
        pool, zone = self.pool_of[place], self.zone[place]
        pool.by_devices[zone][self.whole[place]][place] = None
        pool.by_cores[zone][self.cores[place] // WHOLE][place] = None
        if self.whole[place] < pool.count:
            for device, free in enumerate(self.parts[place]):
                if 0 < free < WHOLE:
                    insort(pool.shared[zone], (free, place, device))

    def _leave(self, place: int) -> None:
        pool, zone = self.pool_of[place], self.zone[place]
        del pool.by_devices[zone][self.whole[place]][place]
        del pool.by_cores[zone][self.cores[place] // WHOLE][place]
        if self.whole[place] < pool.count:
            for device, free in enumerate(self.parts[place]):
                if 0 < free < WHOLE:
                    listed = pool.shared[zone]
                    del listed[bisect_left(listed, (free, place, device))]

    def _sort_into_pools(self, keys: Sequence[str]) -> None:
        known: dict[tuple[Accelerators | None, tuple[tuple[str, str], ...]], Pool] = {}
        domains: dict[Accelerators | None, dict[str, list[int]]] = {}
        for place, node in enumerate(self.nodes):
            labels = tuple((key, node.labels[key]) for key in keys if key in node.labels)
            within = domains.setdefault(node.accelerators, {})
            pool = known.setdefault((node.accelerators, labels), Pool(node.accelerators, labels, domains=within))
            pool.members.append(place)
            if node.zone not in pool.zones:
                pool.zones.append(node.zone)
            if node.domain:
                within.setdefault(node.domain, []).append(place)
            self.pool_of.append(pool)
        self.pools = list(known.values())
        for pool in self.pools:
            pool.largest = max(pool.members, key=lambda place: (self.all_cores[place], self.memory[place], -place))
